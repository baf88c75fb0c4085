//! Tiny trainings of the plain defaults, and the hash of what they learn: where it differs from the hash in the board's record, the
//! record's figures are of another model, and the board must run again.

use docent::data::{Dataset, Protocol, Split, SyntheticOptions, World};
use docent::options::{ModelOptions, TrainOptions};
use docent::progress::{Cancel, Silent};
use docent::train::{Trainer, defaults};

/// The trainings by name, each with the hash of its weights, on plain loops so that every processor gives the same bits.
///
/// # Errors
/// Those of training.
pub fn hashes() -> docent::Result<Vec<(String, String)>> {
    docent::force_scalar(true);
    let world = SyntheticOptions { entities: 40, items: 60, days: 30, events_per_entity: 15.0, ..Default::default() };
    let data = World::new(&world, 1)?.dataset()?;
    let mut timeless = data.clone();
    timeless.events.time.clear();
    timeless.schema.has_time = false;
    let all =
        [("world", &data, true), ("world-without-metadata", &data, false), ("world-without-times", &timeless, true)];
    all.into_iter().map(|(name, data, metadata)| Ok((name.to_owned(), hash(data, metadata)?))).collect()
}

fn hash(data: &Dataset, metadata: bool) -> docent::Result<String> {
    let split = Split::new(data, &Protocol::LeaveOneOut)?;
    let chosen = defaults(data, &split)?;
    let model = ModelOptions { tower: chosen.model.tower.filter(|_| metadata), ..chosen.model };
    // The bound is the rule's, but for the time that a test may take.
    let options = TrainOptions { epochs: 2, ..chosen.train.clone() };
    let trained = Trainer::new(data, &split).model(model).options(options).run(&mut Silent, &Cancel::new())?;
    let mut hash = blake3::Hasher::new();
    hash.update(format!("{} {}", chosen.train.epochs, chosen.train.patience).as_bytes());
    for array in [&trained.items, &trained.dense, &trained.features] {
        for value in array {
            hash.update(&value.to_le_bytes());
        }
    }
    Ok(hash.finalize().to_hex()[..16].to_owned())
}
