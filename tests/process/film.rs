//! The item that a child adds.

use docent::Cell;
use docent::serve::NewItem;

const FIELDS: [(&str, Cell<'_>); 3] =
    [("kind", Cell::Text("film")), ("genre", Cell::Texts(&["war", "fun"])), ("price", Cell::Number(7.0))];
const START: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;

pub fn film(id: &str) -> NewItem<'_> {
    NewItem { id, title: Some("New"), released: Some(START), now: Some(START + 3 * DAY), fields: &FIELDS }
}
