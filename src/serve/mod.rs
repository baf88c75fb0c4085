//! How is a request answered?
