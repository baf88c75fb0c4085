//! Adaptation to each entity, from training to requests: the ranker in a generation, batch adaptation, outcomes observed while
//! serving.

mod batch;
mod joint;
mod kinds;
mod online;
mod scene;
mod surface;
