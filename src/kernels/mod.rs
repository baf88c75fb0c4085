//! What must run at the speed of memory?
