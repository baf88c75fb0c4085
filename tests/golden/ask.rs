//! What is asked of the golden stores, and the text that answers are compared as.

use docent::serve::{Engine, EngineOptions, Filter, PersonalOptions, Query, Recommendations};
use docent::{Error, ErrorKind};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// An answer: numbers by name, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub question: String,
    pub numbers: Vec<(String, f32)>,
}

/// The folder of the stores of version 1.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1")
}

/// The stores: one with a ranker, whose second generation is adapted, with live items and states; one with a tokenizer.
pub const STORES: [&str; 2] = ["ranker", "tokenizer"];

/// Asks the stores in `folder`, whose live files are written.
pub fn ask(folder: &Path) -> Result<Vec<Answer>, Error> {
    let mut answers = Vec::new();
    let open = |store: &str, generation: Option<u64>, live: bool| {
        let options = EngineOptions {
            generation: generation.map(docent::store::GenerationId),
            live,
            personal: live.then(PersonalOptions::default),
            ..EngineOptions::default()
        };
        Engine::open(folder.join(store), &options)
    };
    ask_engine("ranker 1", &open("ranker", Some(1), false)?, &mut answers)?;
    ask_engine("ranker 2", &open("ranker", None, false)?, &mut answers)?;
    ask_engine("live", &open("ranker", None, true)?, &mut answers)?;
    ask_engine("tokenizer", &open("tokenizer", None, false)?, &mut answers)?;
    Ok(answers)
}

fn ask_engine(name: &str, engine: &Engine, answers: &mut Vec<Answer>) -> Result<(), Error> {
    let mut tell = |question: String, numbers: Vec<(String, f32)>| answers.push(Answer { question, numbers });
    let listed = |list: Recommendations| list.items.into_iter().map(|i| (i.id, i.score)).collect::<Vec<_>>();
    let numbered = |v: Vec<f32>| v.into_iter().enumerate().map(|(i, x)| (i.to_string(), x)).collect::<Vec<_>>();
    let items = ["i0001", "i0004", "i0009", "i0016"];
    let named = |v: Vec<f32>| items.iter().map(|i| (*i).to_owned()).zip(v).collect::<Vec<_>>();
    let every = Filter::default();
    let known = ["i0002", "i0005", "i0003"];
    let phone = [("device", docent::Cell::Text("phone"))];
    let queries = [
        ("p0001", Query::entity("p0001")),
        ("p0002", Query::entity("p0002")),
        ("p0002 on a phone", Query::entity("p0002").with(&phone)),
        ("p0005 at a time", Query::entity("p0005").at(1_800_000_000_000)),
        ("a stranger", Query::entity("a stranger")),
        ("three items", Query::items(&known)),
    ];
    for (who, query) in &queries {
        tell(format!("{name}: recommend to {who}"), listed(engine.recommend(query, &every, 10)?));
        tell(format!("{name}: score for {who}"), named(engine.score(query, &items)?));
        tell(format!("{name}: embedding of {who}"), numbered(engine.user_embedding(query)?));
        match engine.probabilities(query, &items) {
            Ok(found) => tell(format!("{name}: probabilities for {who}"), named(found.concat())),
            Err(e) if e.kind() == ErrorKind::InvalidConfig => {}
            Err(e) => return Err(e),
        }
    }
    for item in ["i0003", "i0010"] {
        tell(format!("{name}: similar to {item}"), listed(engine.similar(item, &every, 5)?));
        tell(format!("{name}: embedding of {item}"), numbered(engine.item_embedding(item)?));
    }
    if name == "live" {
        tell(format!("{name}: embedding of a new item"), numbered(engine.item_embedding("new")?));
        let own = engine.meta_embedding("p0002")?.map(|e| e.embedding).unwrap_or_default();
        tell(format!("{name}: meta embedding of p0002"), numbered(own));
    }
    Ok(())
}

/// The committed form: a line per question, then one per number with its bits.
pub fn text(answers: &[Answer]) -> String {
    let mut text = String::new();
    for answer in answers {
        let _ = writeln!(text, "{}", answer.question);
        for (name, number) in &answer.numbers {
            let _ = writeln!(text, "\t{name}\t{:08x}\t{number:?}", number.to_bits());
        }
    }
    text
}

/// Reads what [`text`] wrote.
pub fn parse(text: &str) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('\t') {
            None => answers.push(Answer { question: line.into(), numbers: Vec::new() }),
            Some(number) => {
                let parts: Vec<&str> = number.split('\t').collect();
                let bits = u32::from_str_radix(parts[1], 16).unwrap();
                answers.last_mut().unwrap().numbers.push((parts[0].into(), f32::from_bits(bits)));
            }
        }
    }
    answers
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}
