//! temporary: stores to compare with those of another build
use crate::data::{DatasetFile, Protocol, Split};
use crate::progress::{Cancel, Silent};
use crate::store::{RunRecord, Store};
use crate::train::{TrainConfig, TrainFile, Trainer, defaults, publish};
#[test]
fn zz_bytes() {
    let Ok(root) = std::env::var("ZZ") else { return };
    let root = std::path::Path::new(&root);
    let file = DatasetFile::open(&root.join("world/dataset.toml"), None).unwrap();
    let data = file.read(&mut Silent, &Cancel::new()).unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    for c in ["a", "b", "c"] {
        let text =
            std::fs::read_to_string(root.join(format!("{c}.toml"))).unwrap().replace("context =", "max_length =");
        let rule = defaults(&data, &split).unwrap();
        let mut config = TrainConfig { model: rule.model, train: rule.train, ..TrainConfig::default() };
        config = TrainFile::parse(&text).unwrap().over(config).unwrap();
        config.train.threads = 2;
        config.train.seed = 1;
        let trained = Trainer::new(&data, &split).model(config.model).options(config.train).tokenizer(config.tokenizer);
        let trained = trained.run(&mut Silent, &Cancel::new()).unwrap();
        println!("{c} {:?}", trained.validation);
        let store = Store::create(&root.join(format!("new-{c}"))).unwrap();
        publish(&mut store.publisher().unwrap(), &data, &split, &trained, &RunRecord::default()).unwrap();
    }
}
