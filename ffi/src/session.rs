//! The memory that one thread reuses from request to request.

use crate::boundary::fail;
use crate::engine::docent_engine;
use crate::error::{docent_error, run};
use crate::generation::docent_generation;
use crate::handle::{Object, exclude, give, release, share};
use crate::list::Lists;
use crate::output::Output;
use crate::status::docent_status;
use docent_api::serve::{Engine, Generation, Session};
use std::sync::Arc;

/// The memory that one thread reuses from request to request, and the generation that its last answer came from.
/// Requests are made through a session, one at a time.
pub struct docent_session {
    _opaque: [u8; 0],
}

impl Object for docent_session {
    type Value = Thread;
    const TAG: u32 = 0xd0ce_0005;
    const NAME: &'static str = "session";
}

/// What a session object holds.
pub(crate) struct Thread {
    pub(crate) engine: Arc<Engine>,
    pub(crate) session: Session,
    pub(crate) lists: Lists,
    /// Where the last answer came from.
    pub(crate) answered: Option<Arc<Generation>>,
}

/// A new session of an engine, which it keeps open for as long as it lives. Take one per thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_session_new(
    engine: *const docent_engine,
    session: *mut *mut docent_session,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_session_new", error, || {
        let session = Output::begin(session, std::ptr::null_mut()).needed("session")?;
        let engine = Arc::clone(&*share(engine)?);
        give(Thread { engine, session: Session::new(), lists: Lists::default(), answered: None }, &session);
        Ok(())
    })
}

/// Takes hold of the generation that the session's last answer came from, to name the rows of that answer.
/// DOCENT_ERR_NOT_FOUND where there is no answer as yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_session_generation(
    session: *const docent_session,
    generation: *mut *mut docent_generation,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_session_generation", error, || {
        let generation = Output::begin(generation, std::ptr::null_mut()).needed("generation")?;
        let session = share(session)?;
        let answered = session
            .answered
            .as_ref()
            .ok_or_else(|| fail!(NotFound, "this session holds no answer; ask for a list first, then name its rows"))?;
        give(Arc::clone(answered), &generation);
        Ok(())
    })
}

/// Lets go of the generation that the session's last answer came from, so that it is unmapped once the engine has gone
/// over to another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_session_release(
    session: *mut docent_session,
    error: *mut *mut docent_error,
) -> docent_status {
    run("docent_session_release", error, || {
        let mut session = exclude(session)?;
        session.session.release();
        session.answered = None;
        Ok(())
    })
}

/// Frees a session. NULL is nothing to free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn docent_session_free(session: *mut docent_session) -> docent_status {
    run("docent_session_free", std::ptr::null_mut(), || release(session))
}
