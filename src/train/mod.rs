//! How do weights come to be?
