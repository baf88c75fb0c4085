//! Objects that are in use, and objects of another process.

use super::fixture::Fixture;
use crate::handle::{exclude, share};
use crate::status::{DOCENT_ERR_BUSY, DOCENT_OK};

#[test]
fn an_object_in_use_is_busy() {
    let mut made = Fixture::new();
    let held = exclude(made.session).unwrap();
    for name in [
        "docent_recommend",
        "docent_similar",
        "docent_score",
        "docent_user_embedding",
        "docent_item_embedding",
        "docent_session_generation",
        "docent_session_release",
        "docent_session_free",
    ] {
        assert_eq!(made.call(name), DOCENT_ERR_BUSY, "{name}");
    }
    drop(held);
    assert_eq!(made.call("docent_recommend"), DOCENT_OK, "{}", made.message());
    let held = exclude(made.query).unwrap();
    assert_eq!(made.call("docent_recommend"), DOCENT_ERR_BUSY);
    assert!(made.message().contains("query"), "{}", made.message());
    drop(held);
}

#[test]
fn an_object_that_is_read_can_be_read_by_others_and_not_changed() {
    let mut made = Fixture::new();
    let (query, filter, engine) =
        (share(made.query).unwrap(), share(made.filter).unwrap(), share(made.engine).unwrap());
    for name in ["docent_recommend", "docent_engine_reload", "docent_engine_generation"] {
        assert_eq!(made.call(name), DOCENT_OK, "{name}: {}", made.message());
    }
    for name in ["docent_query_clear", "docent_query_free", "docent_filter_deny", "docent_engine_free"] {
        assert_eq!(made.call(name), DOCENT_ERR_BUSY, "{name}");
    }
    drop((query, filter, engine));
    assert_eq!(made.call("docent_query_clear"), DOCENT_OK);
}
