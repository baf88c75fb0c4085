//! A small generated model in a store of its own, with the plain truth beside it to compare answers with.

use docent::model::{Inference, Standing, Value, Weights, sections};
use docent::options::{
    Block, ListOrder, ModelOptions, Positions, RankerOptions, RankerTrainOptions, TowerOptions, TrainOptions,
};
use docent::random::Rng;
use docent::ranker::{Inputs, RankerShape};
use docent::schema::{EventField, Field, FieldKind, ImpressionField, Schema, Timing};
use docent::serve::{Engine, EngineOptions};
use docent::store::{Dtype, GenerationId, ManifestContent, RankerRecord, RunRecord, Store, TrainingRecord};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const DAY: i64 = 86_400_000;
pub const START: i64 = 1_700_000_000_000;

pub fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|t| (*t).to_owned()).collect()
}

/// A section before it is published.
#[derive(Clone)]
pub struct Section {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// Everything that is published, to be altered by a test before.
#[derive(Clone)]
pub struct World {
    pub content: ManifestContent,
    pub sections: BTreeMap<String, Section>,
    pub entities: usize,
}

/// What a world is made of.
#[derive(Clone, Copy)]
pub struct Make {
    pub seed: u64,
    pub items: usize,
    pub entities: usize,
    pub max_length: u32,
    pub block: Block,
    pub tower: bool,
    pub width: usize,
    /// Events of an entity are 3 and up to so many more.
    pub events: usize,
    /// Whether there is a ranker.
    pub ranker: bool,
}

impl Default for Make {
    fn default() -> Self {
        Self {
            seed: 1,
            items: 40,
            entities: 8,
            max_length: 6,
            block: Block::Gated,
            tower: true,
            width: 8,
            events: 17,
            ranker: false,
        }
    }
}

pub fn item(row: usize) -> String {
    // Ids whose order of bytes is not that of the rows.
    format!("i{}", (row * 37) % 1_000_003)
}

/// The title of an item row; empty is unknown.
fn title(row: usize) -> String {
    if row % 9 == 4 { String::new() } else { format!("Title № {row}") }
}

pub fn entity(row: usize) -> String {
    format!("user-{}", (row * 101) % 1_000_003)
}

pub fn schema() -> Schema {
    let event = |name: &str, kind, timing| EventField { field: Field { name: name.into(), kind }, timing };
    Schema {
        name: "generated".into(),
        has_time: true,
        actions: texts(&["view", "like"]),
        value: Some(FieldKind::Numeric(vec![1.0, 2.0])),
        has_label: false,
        event_fields: vec![
            event("device", FieldKind::Categorical(texts(&["tv", "phone"])), Timing::Request),
            event("seconds", FieldKind::Numeric(vec![10.0, 60.0]), Timing::PostAction),
        ],
        item_fields: vec![
            Field { name: "kind".into(), kind: FieldKind::Categorical(texts(&["film", "series"])) },
            Field { name: "genre".into(), kind: FieldKind::MultiValued(texts(&["war", "art", "fun"])) },
            Field { name: "price".into(), kind: FieldKind::Numeric(vec![5.0]) },
            Field { name: "look".into(), kind: FieldKind::Vector(2) },
        ],
        entity_fields: vec![
            Field { name: "country".into(), kind: FieldKind::Categorical(texts(&["nl", "fr"])) },
            Field { name: "age".into(), kind: FieldKind::Numeric(vec![30.0]) },
        ],
    }
}

impl World {
    pub fn new(make: Make) -> Self {
        let Make { seed, items, entities, max_length, block, tower, width, events, ranker } = make;
        let mut rng = Rng::new(seed);
        let model = ModelOptions {
            width: width as u32,
            block,
            blocks: 2,
            heads: 2,
            hidden: 2 * width as u32,
            max_length,
            positions: Positions::Learned,
            field_width: 4,
            tower: tower.then(|| TowerOptions { title_buckets: 16, ..TowerOptions::default() }),
            ..ModelOptions::default()
        };
        let schema = schema();
        let (dense, features) = Inference::new(&schema, &model).unwrap().sizes();
        let mut normal = |n: usize, size: f64| (0..n).map(|_| (rng.normal() * size) as f32).collect::<Vec<f32>>();
        let vectors = normal(items * width, 1.0);
        let weights = normal(dense, 0.4);
        let tables = normal(features, 0.5);
        let look = normal(items * 2, 1.0);
        let longest = events as u64;
        let lengths: Vec<u64> = (0..entities).map(|u| if u == 2 { 0 } else { 3 + (u as u64 * 5) % longest }).collect();
        let mut offsets = vec![0];
        lengths.iter().for_each(|n| offsets.push(offsets.last().unwrap() + n));
        let events = *offsets.last().unwrap() as usize;
        let mut world = Self {
            content: ManifestContent {
                schema,
                model,
                serve: Default::default(),
                tokenizer: None,
                training: TrainingRecord {
                    options: TrainOptions::default(),
                    data_hash: [0; 32],
                    protocol: String::new(),
                    target_hash: [0; 32],
                    validation: vec![],
                    losses: vec![("next-item".into(), 1.5)],
                    epochs: 1,
                    best_epoch: 0,
                    steps: 1,
                    tokens: 1,
                    parameters: (dense + features) as u64,
                    stopped: "epochs".into(),
                    version: "0".into(),
                },
                kept: Default::default(),
                ranker: None,
                items: items as u64,
                entities: entities as u64,
                events: events as u64,
            },
            sections: BTreeMap::new(),
            entities,
        };
        world.ids(sections::ITEM_IDS, &(0..items).map(item).collect::<Vec<_>>());
        world.ids(sections::ENTITY_IDS, &(0..entities).map(entity).collect::<Vec<_>>());
        let titles: Vec<String> = (0..items).map(title).collect();
        world.list("item.titles", &titles);
        let released: Vec<i64> = (0..items).map(|i| if i % 6 == 5 { i64::MIN } else { i as i64 * DAY }).collect();
        world.put(sections::ITEM_RELEASED, Dtype::I64, &[items], released.iter().flat_map(|v| v.to_le_bytes()));
        world.put_u32("item.field.0.codes", &(0..items as u32).map(|i| i % 3).collect::<Vec<_>>());
        let (mut codes, mut starts) = (vec![], vec![0]);
        for i in 0..items as u32 {
            codes.extend((1..=3).filter(|g| (i / g) % 2 == 1));
            starts.push(codes.len() as u32);
        }
        world.put_u32("item.field.1.codes", &codes);
        world.put_u32("item.field.1.offsets", &starts);
        let prices: Vec<f32> = (0..items).map(|i| if i % 7 == 3 { f32::NAN } else { i as f32 }).collect();
        world.put_f32("item.field.2.numbers", &[items], &prices);
        world.put_f32("item.field.3.vectors", &[items, 2], &look);
        world.put_f32(sections::ITEM_VECTORS, &[items, width], &vectors);
        if tower {
            world.tower(&normal(items * width, 1.0), &weights, &tables);
        }
        // Of entity 2, who has no events, no profile is known either.
        world.put_u32("entity.field.0.codes", &(1..=entities as u32).map(|u| u % 3).collect::<Vec<_>>());
        let ages: Vec<f32> = (0..entities).map(|u| if u % 4 == 2 { f32::NAN } else { 10.0 + 9.0 * u as f32 }).collect();
        world.put_f32("entity.field.1.numbers", &[entities], &ages);
        for (field, codes) in [(0, 3u32), (1, 3)] {
            let name = |part: &str| format!("profile.popularity.{field}.{part}");
            // Few items each, others than those that are popular among all.
            let rows: Vec<u32> = (0..4 * codes).map(|i| (i * 5 + field) % items as u32).collect();
            let weights: Vec<f32> = (0..codes).map(|c| 150.0 * c as f32).collect();
            world.put_f32(&name("weights"), &[codes as usize], &weights);
            world.put_u32(&name("offsets"), &(0..=codes).map(|c| 4 * c).collect::<Vec<_>>());
            world.put_u32(&name("rows"), &rows);
            let shares: Vec<f32> = (0..rows.len()).map(|i| [0.4, 0.3, 0.2, 0.05][i % 4]).collect();
            world.put_f32(&name("shares"), &[rows.len()], &shares);
        }
        let counts: Vec<f32> = (0..items).map(|i| ((i * 7) % 11) as f32 + 1.0).collect();
        let total: f32 = counts.iter().sum();
        let shares: Vec<f32> = counts.iter().map(|c| c / total).collect();
        let mut popular: Vec<u32> = (0..items as u32).collect();
        popular.sort_by(|a, b| shares[*b as usize].total_cmp(&shares[*a as usize]).then(a.cmp(b)));
        world.put_f32(sections::ITEM_POPULARITY, &[items], &shares);
        world.put_u32(sections::ITEM_POPULAR, &popular);
        world.put_f32(sections::WEIGHTS, &[dense], &weights);
        world.put_f32(sections::FEATURES, &[features], &tables);
        world.put(sections::HISTORY_OFFSETS, Dtype::U64, &[entities + 1], offsets.iter().flat_map(|v| v.to_le_bytes()));
        world.put_u32(
            sections::HISTORY_ITEMS,
            &(0..events as u32).map(|e| (e * 13 + 5) % items as u32).collect::<Vec<_>>(),
        );
        let times: Vec<i64> = (0..events as i64).map(|e| START + e * DAY / 3).collect();
        world.put(sections::HISTORY_TIME, Dtype::I64, &[events], times.iter().flat_map(|v| v.to_le_bytes()));
        let actions: Vec<u16> = (0..events).map(|e| (e % 2) as u16).collect();
        world.put(sections::HISTORY_ACTION, Dtype::U16, &[events], actions.iter().flat_map(|v| v.to_le_bytes()));
        let values: Vec<f32> = (0..events).map(|e| if e % 4 == 0 { f32::NAN } else { e as f32 / 10.0 }).collect();
        world.put_f32(sections::HISTORY_VALUE, &[events], &values);
        if ranker {
            world.ranker(&mut rng);
        }
        world.put_u32("history.field.0", &(0..events as u32).map(|e| e % 3).collect::<Vec<_>>());
        world.put_u32("history.field.1", &(0..events as u32).map(|e| e % 4).collect::<Vec<_>>());
        world
    }

    /// A ranker of two heads that nobody was adapted to yet.
    fn ranker(&mut self, rng: &mut Rng) {
        let (options, width) = (RankerOptions::default(), self.content.model.width as usize);
        let means = vec![0.2, 0.1];
        let inputs = Inputs::new(&self.content.schema, width, &means).width();
        let training = RankerTrainOptions::default();
        let shape = RankerShape::new(&options, inputs, width, 2, 2, training.inner_rate).unwrap();
        let items = self.content.items as usize;
        let mut normal = |n: usize| (0..n).map(|_| (rng.normal() * 0.1) as f32).collect::<Vec<f32>>();
        let (dense, own) = (normal(shape.layout.size()), normal(items * options.item_width as usize));
        self.put_f32(sections::RANKER_WEIGHTS, &[dense.len()], &dense);
        self.put_f32(sections::RANKER_ITEMS, &[items, options.item_width as usize], &own);
        self.put_f32(sections::RANKER_POPULARITY, &[items], &normal(items));
        self.content.ranker = Some(RankerRecord {
            order: ListOrder::default(),
            shape: options,
            options: training,
            heads: texts(&["click", "like"]),
            means,
            impression: vec![ImpressionField { name: "position".into(), mean: 5.0, deviation: 2.0 }],
            surfaces: vec![],
            calibration: vec![[1.0, 0.0]; 2],
            validation: vec![],
            epochs: 1,
            best_epoch: 0,
            outcomes: 0,
            held_out: 0.0,
            adapted: 0,
        });
    }

    /// Item vectors as the item tower makes them of these ID embeddings and the metadata.
    fn tower(&mut self, ids: &[f32], dense: &[f32], features: &[f32]) {
        let width = self.content.model.width as usize;
        let items = ids.len() / width;
        self.put_f32(sections::ITEM_EMBEDDINGS, &[items, width], ids);
        let evidence: Vec<u32> = (0..items as u32).map(|i| i % 5).collect();
        self.put_u32(sections::ITEM_EVIDENCE, &evidence);
        let ages: Vec<f32> = (0..items).map(|i| if i % 6 == 5 { f32::NAN } else { i as f32 }).collect();
        self.put_f32(sections::ITEM_AGE, &[items], &ages);
        let inference = Inference::new(&self.content.schema, &self.content.model).unwrap();
        let tower = inference.tower().unwrap();
        let (kinds, genres) = (self.u32s("item.field.0.codes"), self.u32s("item.field.1.codes"));
        let starts = self.u32s("item.field.1.offsets");
        let (prices, looks) = (self.f32s("item.field.2.numbers"), self.f32s("item.field.3.vectors"));
        let mut vectors = vec![0.0; items * width];
        for (i, vector) in vectors.chunks_exact_mut(width).enumerate() {
            let values = [
                Value::Codes(&kinds[i..=i]),
                Value::Codes(&genres[starts[i] as usize..starts[i + 1] as usize]),
                Value::Number(prices[i]),
                Value::Vector(&looks[2 * i..2 * i + 2]),
            ];
            let metadata = tower.describe(&title(i), &values);
            let age = Some(ages[i]).filter(|a| !a.is_nan());
            let standing = Standing { age, evidence: evidence[i], known: evidence[i] > 0 };
            let weights = Weights { items: &[], dense, features, more: &() };
            tower.vector(weights, &metadata, Some(&ids[width * i..width * (i + 1)]), standing, vector).unwrap();
        }
        self.put_f32(sections::ITEM_VECTORS, &[items, width], &vectors);
    }

    pub fn put(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: impl IntoIterator<Item = u8>) {
        let shape = shape.iter().map(|d| *d as u64).collect();
        self.sections.insert(name.into(), Section { dtype, shape, bytes: bytes.into_iter().collect() });
    }

    pub fn put_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.put(name, Dtype::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()));
    }

    pub fn put_u32(&mut self, name: &str, values: &[u32]) {
        self.put(name, Dtype::U32, &[values.len()], values.iter().flat_map(|v| v.to_le_bytes()));
    }

    fn list(&mut self, prefix: &str, texts: &[String]) {
        let mut offsets = vec![0u64];
        texts.iter().for_each(|t| offsets.push(offsets.last().unwrap() + t.len() as u64));
        let bytes = texts.iter().flat_map(|t| t.bytes());
        let length = *offsets.last().unwrap() as usize;
        self.put(&format!("{prefix}.bytes"), Dtype::U8, &[length], bytes.collect::<Vec<_>>());
        let offsets = offsets.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
        self.put(&format!("{prefix}.offsets"), Dtype::U64, &[texts.len() + 1], offsets);
    }

    fn ids(&mut self, prefix: &str, ids: &[String]) {
        self.list(prefix, ids);
        let mut sorted: Vec<u32> = (0..ids.len() as u32).collect();
        sorted.sort_by_key(|row| &ids[*row as usize]);
        self.put_u32(&format!("{prefix}.sorted"), &sorted);
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.sections[name].bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn u32s(&self, name: &str) -> Vec<u32> {
        self.sections[name].bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn u64s(&self, name: &str) -> Vec<u64> {
        self.sections[name].bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Item rows that the entity's stored history holds.
    pub fn seen(&self, entity: usize) -> Vec<u32> {
        let offsets = self.u64s(sections::HISTORY_OFFSETS);
        self.u32s(sections::HISTORY_ITEMS)[offsets[entity] as usize..offsets[entity + 1] as usize].to_vec()
    }

    pub fn publish(&self, store: &Path) -> GenerationId {
        let store = match store.exists() {
            true => Store::open(store).unwrap(),
            false => Store::create(store).unwrap(),
        };
        let mut publisher = store.publisher().unwrap();
        for (name, s) in &self.sections {
            publisher.section(name, s.dtype, &s.shape, &s.bytes).unwrap();
        }
        publisher.publish(&self.content, &RunRecord::default()).unwrap()
    }
}

/// A store in a directory of its own, removed at the end.
pub struct Shop {
    pub dir: tempfile::TempDir,
    pub world: World,
}

impl Shop {
    pub fn new() -> Self {
        Self::of(World::new(Make::default()))
    }

    pub fn of(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        world.publish(&dir.path().join("store"));
        Self { dir, world }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn engine(&self) -> Engine {
        Engine::open(self.path(), &EngineOptions::default()).unwrap()
    }
}

/// The scores of all items by plain arithmetic, from the user vector that the engine gives.
pub fn scores(world: &World, user: &[f32]) -> Vec<f64> {
    let vectors = world.f32s(sections::ITEM_VECTORS);
    let dot = |row: &[f32]| row.iter().zip(user).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    vectors.chunks_exact(user.len()).map(dot).collect()
}

/// The best rows of `scores` that `admits` lets pass.
pub fn best(scores: &[f64], k: usize, admits: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..scores.len() as u32).filter(|row| admits(*row)).collect();
    rows.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
    rows.truncate(k);
    rows
}
