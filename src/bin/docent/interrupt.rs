//! Ctrl-C: the first one asks for a clean stop, the second one stops at once.

use docent::progress::Cancel;
use docent::{Error, ErrorKind, Result};

/// The exit code of what was interrupted, as a shell has it for SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

/// A token that Ctrl-C (and a request to terminate) uses.
pub(crate) fn cancel_on_ctrl_c() -> Result<Cancel> {
    let cancel = Cancel::new();
    let asked = cancel.clone();
    ctrlc::set_handler(move || {
        if asked.is_cancelled() {
            std::process::exit(i32::from(EXIT_CODE));
        }
        asked.cancel();
    })
    .map_err(|e| Error::new(ErrorKind::Io, format!("cannot listen for Ctrl-C: {e}; run where signals are allowed")))?;
    Ok(cancel)
}
