//! How do bytes live safely on disk and in memory?
