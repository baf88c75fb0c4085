//! What is computed?
