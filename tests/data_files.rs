//! Files become datasets; files that are wrong become errors that say where and what to do.
#![cfg(feature = "files")]

use docent::data::*;
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::schema::{FieldKind, Timing};
use docent::{Error, ErrorKind};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads `dataset.toml` text against this folder; also returns the warnings.
    fn read_watched(&self, toml: &str) -> Result<(Dataset, Vec<String>), Error> {
        let mut warnings = Vec::new();
        let mut observer = |event: &ProgressEvent| {
            if let ProgressEvent::Warning(text) = event {
                warnings.push(text.clone());
            }
        };
        let data = DatasetFile::parse(toml, self.path())?.read(&mut observer, &Cancel::new())?;
        Ok((data, warnings))
    }

    fn read(&self, toml: &str) -> Result<Dataset, Error> {
        self.read_watched(toml).map(|(data, _)| data)
    }
}

/// A description of events in `e.csv` with more keys in `[events]`.
fn events(keys: &str) -> String {
    format!("name = \"t\"\n[events]\nfiles = \"e.csv\"\nentity = \"user\"\nitem = \"item\"\n{keys}")
}

fn history<'a>(data: &'a Dataset, entity: &str) -> Vec<&'a str> {
    let row = data.entities.row(entity).unwrap();
    data.history(row).iter().map(|&i| data.items.id(i)).collect()
}

fn fails(bytes: &[u8], toml: &str, kind: ErrorKind, words: &[&str]) {
    let error = Folder::new(&[("e.csv", bytes)]).read(toml).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "`{word}` is not in: {error}");
    }
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn every_role_of_an_event_is_read() {
    let folder = Folder::new(&[(
        "e.csv",
        b"user,item,when,what,seconds,stars,device,hour,done\n\
          1,x,2020-01-02,view,2.5,5,\"tv, large\",9,yes\n\
          1,y,2020-01-01,like,,3,,NA,no\n\
          2,x,2020-01-03,view,1,1,phone,23,\n",
    )]);
    let data = folder
        .read(&events(
            "time = { column = \"when\", format = \"iso\" }\naction = \"what\"\nvalue = \"seconds\"\nmissing = [\"NA\"]\n\
             label = { column = \"stars\", positive = \">= 4\", negative = \"<= 2\" }\n\
             request = [\"device\", { column = \"hour\", kind = \"numeric\" }]\n\
             post_action = [{ column = \"done\", name = \"finished\" }]\n",
        ))
        .unwrap();
    assert_eq!(history(&data, "1"), ["y", "x"]);
    assert_eq!(data.events.time, [1_577_836_800_000, 1_577_923_200_000, 1_578_009_600_000]);
    assert_eq!(
        (data.schema.actions.clone(), &data.events.action[..]),
        (vec!["view".into(), "like".into()], &[1, 0, 0][..])
    );
    assert!(data.events.value[0].is_nan() && data.events.value[1..] == [2.5, 1.0]);
    assert!(data.events.label[0].is_nan() && data.events.label[1..] == [1.0, 0.0]);
    let names: Vec<_> = data.schema.event_fields.iter().map(|f| (f.field.name.as_str(), f.timing)).collect();
    assert_eq!(names, [("device", Timing::Request), ("hour", Timing::Request), ("finished", Timing::PostAction)]);
    assert_eq!(
        data.schema.event_fields[0].field.kind,
        FieldKind::Categorical(vec!["phone".into(), "tv, large".into()])
    );
    assert!(matches!(&data.events.fields[1], Column::Numbers(x) if x[0].is_nan() && x[1..] == [9.0, 23.0]));
}

#[test]
fn keys_under_the_names_of_earlier_versions_are_read_with_a_warning() {
    let folder = Folder::new(&[("e.csv", b"user,item,device,done\n1,x,tv,yes\n1,y,phone,no\n")]);
    let (new, warnings) = folder.read_watched(&events("request = [\"device\"]\npost_action = [\"done\"]\n")).unwrap();
    assert_eq!(warnings, [""; 0]);
    let old = events("context = [\"device\"]\noutcome = [\"done\"]\n");
    let (data, warnings) = folder.read_watched(&old).unwrap();
    assert_eq!(data, new);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("`context` is called `request` now"), "{warnings:?}");
    assert!(warnings[1].contains("`outcome` is called `post_action` now"), "{warnings:?}");

    let path = folder.path().join("dataset.toml");
    std::fs::write(&path, &old).unwrap();
    let mut told = Vec::new();
    let mut sink = |event: &ProgressEvent| told.push(event.clone());
    DatasetFile::open(&path, None).unwrap().read(&mut sink, &Cancel::new()).unwrap();
    let named = |e: &ProgressEvent| matches!(e, ProgressEvent::Warning(w) if w.starts_with(path.to_str().unwrap()));
    assert_eq!(told.iter().filter(|e| named(e)).count(), 2, "{told:?}");

    for keys in ["request = [\"device\"]\ncontext = []\n", "post_action = []\noutcome = [\"done\"]\n"] {
        let error = folder.read(&events(keys)).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains("before"), "{error}");
    }
}

#[test]
fn a_label_may_be_a_number_and_order_may_replace_time() {
    let folder = Folder::new(&[("e.csv", b"user,item,pos,clicked\nu,b,2,0\nu,a,1,1\nu,c,3,\n")]);
    let data = folder.read(&events("order = \"pos\"\nlabel = \"clicked\"\n")).unwrap();
    assert_eq!(history(&data, "u"), ["a", "b", "c"]);
    assert!(data.events.label[..2] == [1.0, 0.0] && data.events.label[2].is_nan());
    assert!(!data.schema.has_time && data.events.time.is_empty());
}

#[test]
fn delimiters_headers_marks_and_line_ends_are_understood() {
    let same = |bytes: &[u8], keys: &str| {
        let folder = Folder::new(&[("e.csv", bytes)]);
        let data = folder.read(&format!("name = \"t\"\n[events]\nfiles = \"e.csv\"\n{keys}")).unwrap();
        assert_eq!((history(&data, "7"), history(&data, "08")), (vec!["x", "y"], vec!["x"]), "{keys}");
    };
    let named = "entity = \"user\"\nitem = \"item\"\n";
    let numbered = "header = false\nentity = 1\nitem = 2\n";
    same(b"user,item\n7,x\n7,y\n08,x\n", named);
    same(b"\xEF\xBB\xBFuser,item\r\n7,x\r\n7,y\r\n\r\n08,x", named);
    same(b"\xEF\xBB\xBF7::x\r\n7::y\r\n08::x\r\n", &format!("delimiter = \"::\"\n{numbered}"));
    same(b"7 x\n7 y\n08 x\n", &format!("delimiter = \" \"\n{numbered}"));
    same(b" 7  x\n7\t y\n08 x\n", &format!("delimiter = \"whitespace\"\n{numbered}"));
    same(b"7|x\n7|y\n08|x\n", &format!("delimiter = \"|\"\ncolumns = [\"user\", \"item\"]\n{named}"));
    same(b"a\tb\n7\tx\n7\ty\n08\tx\n", "delimiter = \"\\t\"\nentity = 1\nitem = 2\n");
    same(b"user;item\n\"7\";x\n7;\"y\"\n08;x\n", &format!("delimiter = \";\"\nquote = true\n{named}"));
}

#[test]
fn encodings_compressions_lists_and_globs_are_read() {
    let first = "user,item\nu,caf\u{e9}\n";
    let latin: Vec<u8> = first.chars().map(|c| c as u8).collect();
    let folder = Folder::new(&[("e.csv", &latin)]);
    assert_eq!(history(&folder.read(&events("encoding = \"iso-8859-1\"\n")).unwrap(), "u"), ["caf\u{e9}"]);
    let wide: Vec<u8> = "\u{feff}".encode_utf16().chain(first.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let folder = Folder::new(&[("e.csv", &wide)]);
    assert_eq!(history(&folder.read(&events("encoding = \"utf-16le\"\n")).unwrap(), "u"), ["caf\u{e9}"]);

    let (one, two) = (b"user,item\nu,a\n".as_slice(), b"item,user\nb,u\n".as_slice());
    let folder = Folder::new(&[("day-1.csv.zst", &zst(one)), ("day-2.csv.gz", &gz(two)), ("other.txt", b"x")]);
    for files in ["\"day-*\"", "[\"day-1.csv\", \"day-2.csv\"]", "[\"day-1.csv.gz\", \"day-2.csv.zst\"]"] {
        let toml = events("").replace("\"e.csv\"", files);
        assert_eq!(history(&folder.read(&toml).unwrap(), "u"), ["a", "b"], "{files}");
    }
    let plain = Folder::new(&[("day-1.csv", one)]);
    assert_eq!(plain.read(&events("").replace("e.csv", "day-1.csv.zst")).unwrap().events.len(), 1);
}

#[test]
fn items_and_entities_are_read_with_all_their_fields() {
    let folder = Folder::new(&[
        ("e.csv", b"user,item\nu,1\nu,2\nv,3\n"),
        (
            "i.csv",
            b"id,name,out,brand,tags,price,red,blue,pixels\n\
              b,Two,02-Jan-1995,acme,x|y,2.5,1,0,1 2\n\
              b,Two,02-Jan-1995,acme,x|y,2.5,1,0,1 2\n\
              a,One,,,,,0,1,\n\
              z,Unmapped,,,,,0,0,\n",
        ),
        ("map.txt", b"1 a\n2 b\n"),
        ("u.csv", b"id;age;town\nu;30;Ulm\n"),
    ]);
    let toml = events("")
        + r#"
[items]
files = "i.csv"
id = "id"
title = "name"
released = { column = "out", format = "%d-%b-%Y" }
categorical = ["brand"]
multi = [{ column = "tags", separator = "|" }]
flags = [{ name = "colours", columns = ["red", "blue"] }]
numeric = [{ column = "price", name = "cost" }]
vector = [{ column = "pixels", separator = " ", dim = 2 }]
id_map = { files = "map.txt", delimiter = " ", header = false, from = 2, to = 1 }
[entities]
files = "u.csv"
delimiter = ";"
id = "id"
profile = ["town", { column = "age", kind = "numeric" }]
"#;
    let (data, warnings) = folder.read_watched(&toml).unwrap();
    assert_eq!(data.items.names(), ["2", "1", "3"]);
    assert_eq!(data.titles, ["Two", "One", ""]);
    assert_eq!(data.released, [789_004_800_000, i64::MIN, i64::MIN]);
    let names: Vec<_> = data.schema.item_fields.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["brand", "tags", "colours", "cost", "pixels"]);
    assert_eq!(data.schema.item_fields[2].kind, FieldKind::MultiValued(vec!["blue".into(), "red".into()]));
    assert_eq!(data.item_columns[2], Column::Lists { offsets: vec![0, 1, 2, 2], codes: vec![2, 1] });
    assert_eq!(data.item_columns[4], Column::Vectors { dim: 2, values: vec![1.0, 2.0, 0.0, 0.0, 0.0, 0.0] });
    assert_eq!(data.entity_columns[0], Column::Codes(vec![1, 0]));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("1 of the 3 items") && warnings[1].contains("1 of the 2 entities"), "{warnings:?}");
}

#[test]
fn filters_limits_and_the_protocol_are_taken_from_the_file() {
    let folder = Folder::new(&[("e.csv", b"user,item,t,d\nu,a,1,p\nu,a,2,p\nu,b,3,q\nv,a,4,p\nv,c,9,p\n")]);
    let toml = events("time = { column = \"t\", format = \"ms\" }\nrequest = [\"d\"]\n")
        + "[filter]\nfrom = \"1970-01-01T00:00:00.002Z\"\nto = \"1970-01-01T00:00:00.009Z\"\nduplicates = \"error\"\n\
           [limits]\nvocabulary = 1\n[split]\nprotocol = \"cold-items\"\nshare = 0.5\nseed = 4\n";
    let file = DatasetFile::parse(&toml, folder.path()).unwrap();
    assert_eq!(file.protocol(), Some(&Protocol::ColdItems { share: 0.5, seed: 4 }));
    let data = file.read(&mut Silent, &Cancel::new()).unwrap();
    assert_eq!(data.events.time, [2, 3, 4]);
    assert_eq!(data.events.fields, [Column::Codes(vec![1, 0, 1])]);
}

#[test]
fn malformed_rows_name_file_line_column_and_reason() {
    let time = events("time = \"t\"\n");
    let data = ErrorKind::InvalidData;
    fails(b"user,item,t\nu,a,1\nu,b,soon\n", &time, data, &["e.csv line 3", "column `t`", "`soon`", "seconds"]);
    fails(b"user,item,t\nu,a,1\nu,b,\n", &time, data, &["line 3", "column `t`"]);
    fails(b"user,item,t\nu,a,1600000000000\n", &time, data, &["line 2", "format = \"ms\""]);
    fails(b"user,item,t\n,a,1\n", &time, data, &["line 2", "column `user`", "empty"]);
    fails(b"user,item,t\nu,a,1,9\n", &time, data, &["line 2", "4 columns, not 3"]);
    fails(b"user,item\nu,a\nu,\xFF\n", &events(""), data, &["line 3", "0xFF", "encoding"]);
    fails(b"user,item\nu,a\nu,\xFF\n", &events("quote = false\n"), data, &["line 3", "0xFF", "encoding"]);
    fails(b"user,item\nu,a\nu,\x81\x20\n", &events("encoding = \"shift_jis\"\n"), data, &["line 3", "Shift_JIS"]);
    fails(b"user,item,v\nu,a,much\n", &events("value = \"v\"\n"), data, &["line 2", "column `v`", "`much`"]);
    fails(b"user,item,v\nu,a,1e99\n", &events("value = \"v\"\n"), data, &["line 2", "column `v`"]);
    fails(b"user,item,v\nu,a,\n", &events("order = \"v\"\n"), data, &["line 2", "column `v`", "empty"]);
    fails(b"user,item,v\nu,a,\n", &events("action = \"v\"\n"), data, &["line 2", "column `v`", "empty"]);
    let label = events("label = { column = \"v\", positive = \"> 3\" }\n");
    fails(b"user,item,v\nu,a,x\n", &label, data, &["line 2", "column `v`", "`x`"]);
}

#[test]
fn files_that_do_not_fit_their_description_say_so() {
    let config = ErrorKind::InvalidConfig;
    fails(b"person,item,t\nu,a,1\n", &events(""), config, &["no column `user`", "`person`, `item`, `t`"]);
    fails(b"user\titem\nu\ta\n", &events(""), config, &["e.csv", "delimiter = \"\\t\""]);
    fails(b"user::item\nu::a\n", &events(""), config, &["delimiter = \"::\""]);
    fails(b"user,user,item\nu,u,a\n", &events(""), config, &["two columns `user`"]);
    let numbered = "name = \"t\"\n[events]\nfiles = \"e.csv\"\nheader = false\nentity = 1\nitem = 2\n";
    fails(b"u;a\n", numbered, ErrorKind::InvalidData, &["line 1", "delimiter = \";\""]);
    fails(b"user,item\nu,a\n", &events("header = false\n"), config, &["without header"]);
    fails(b"user,item\nu,a\n", &events("").replace("\"item\"", "9"), config, &["2 columns", "column 9"]);
    fails(b"user,item\nu,a\n", &events("").replace("\"item\"", "0"), config, &["counted from 1"]);
    fails(b"user,item\nu,a\n", &events("encoding = \"klingon\"\n"), config, &["`klingon`"]);
    fails(b"user,item\nu,a\n", &events("delimiter = \"\"\n"), config, &["`delimiter` is empty"]);
    fails(b"user,item\nu,a\n", &events("delimiter = \"::\"\nquote = true\n"), config, &["one character"]);
    fails(b"", &events(""), ErrorKind::InvalidData, &["e.csv is empty"]);
    fails(b"user,item\n", &events(""), ErrorKind::InvalidData, &["e.csv is empty"]);
    let missing = events("").replace("e.csv", "f.csv");
    fails(b"user,item\nu,a\n", &missing, ErrorKind::NotFound, &["`f.csv`", "`f.csv.zst`", "`f.csv.gz`"]);
    for (name, bytes) in [("e.csv.zst", zst(b"user,item\nu,a\n")), ("e.csv.gz", gz(b"user,item\nu,a\n"))] {
        let folder = Folder::new(&[(name, &bytes[..bytes.len() - 6])]);
        let error = folder.read(&events("")).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidData && error.message().contains("cut short"), "{error}");
    }
}

#[test]
fn items_described_twice_are_an_error_unless_the_rows_are_equal() {
    let toml = events("") + "[items]\nfiles = [\"i.csv\", \"j.csv\"]\nid = \"id\"\ntitle = \"name\"\n";
    let with = |second: &[u8]| {
        let first = b"id,name\na,One\nb,Two\n".as_slice();
        Folder::new(&[("e.csv", b"user,item\nu,a\n"), ("i.csv", first), ("j.csv", second)]).read(&toml)
    };
    assert_eq!(with(b"id,name\na,One\n").unwrap().titles, ["One"]);
    let error = with(b"id,name\na,Other\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    for word in ["j.csv line 2", "`a`", "i.csv line 2"] {
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn malformed_rows_are_counted_and_past_the_tolerance_reading_stops() {
    let folder = Folder::new(&[("e.csv", b"user,item,t\nu,a,x\nu,b,1\nu,c,y\n")]);
    let toml = |tolerance: u32| format!("tolerance = {tolerance}\n{}", events("time = \"t\"\n"));
    let error = folder.read(&toml(1)).unwrap_err();
    for word in ["2 malformed rows, 1 tolerated", "line 2", "line 4", "`tolerance`"] {
        assert!(error.message().contains(word), "{error}");
    }
    let (data, warnings) = folder.read_watched(&toml(2)).unwrap();
    assert_eq!(history(&data, "u"), ["b"]);
    assert!(warnings.len() == 1 && warnings[0].contains("2 malformed rows"), "{warnings:?}");
}

#[test]
fn sequences_and_attribute_lists_are_read() {
    let folder = Folder::new(&[("s.txt", b"u 1 2 3\nv 2\n"), ("a.json", br#"{"2": [7, "x"], "9": [], "1": [7, 7]}"#)]);
    let toml = "name = \"t\"\n[events]\nfiles = \"s.txt\"\nlayout = \"sequence\"\ndelimiter = \" \"\n\
                [items]\nfiles = \"a.json\"\nformat = \"json-lists\"\nmulti = [\"attributes\"]\n";
    let data = folder.read(toml).unwrap();
    assert_eq!((history(&data, "u"), history(&data, "v")), (vec!["1", "2", "3"], vec!["2"]));
    assert_eq!(data.items.names(), ["2", "1", "3"]);
    assert_eq!(data.schema.item_fields[0].kind, FieldKind::MultiValued(vec!["7".into(), "x".into()]));
    assert_eq!(data.item_columns[0], Column::Lists { offsets: vec![0, 2, 3, 3], codes: vec![1, 2, 1] });

    std::fs::write(folder.path().join("a.json"), br#"{"2": [true]}"#).unwrap();
    assert!(folder.read(toml).unwrap_err().message().contains("a.json"));
    std::fs::write(folder.path().join("s.txt"), b"u\n").unwrap();
    assert!(folder.read(&toml[..toml.find("[items]").unwrap()]).unwrap_err().message().contains("s.txt line 1"));
}

#[test]
fn descriptions_that_are_wrong_name_the_key() {
    for (toml, word) in [
        ("", "name"),
        ("name = \"t\"", "events"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nitem = 1", "`entity`"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\ncolour = 3", "colour"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = -2", "counted from 1"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nlayout = \"sequence\"\nitem = 2", "`item`"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nlayout = \"spiral\"", "sequence"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\n[filter]\nduplicates = \"keep\"", "keep-first"),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\n[split]\nprotocol = \"coin\"", "`coin`"),
        (
            "name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\n[split]\nprotocol = \"time-split\"\ntest = 2.0",
            "shares",
        ),
        ("name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\n[items]\nfiles = \"i\"", "`id`"),
        (
            "name = \"t\"\n[events]\nfiles = \"e\"\nentity = 1\nitem = 2\n[items]\nfiles = \"i\"\nformat = \"json-lists\"",
            "`multi`",
        ),
    ] {
        let error = DatasetFile::parse(toml, Path::new(".")).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains(word), "{word}: {error}");
    }
    let bytes = b"user,item,t\nu,a,1\n";
    let config = ErrorKind::InvalidConfig;
    fails(bytes, &events("time = { column = \"t\", format = \"days\" }\n"), config, &["[events] time", "`days`"]);
    fails(bytes, &events("label = { column = \"t\", positive = \"good\" }\n"), config, &["label", "`good`"]);
    fails(bytes, &events("request = [{ column = 3 }]\n"), config, &["column 3", "name"]);
    fails(bytes, &(events("time = \"t\"\n") + "[filter]\nfrom = \"soon\"\n"), config, &["[filter] from", "`soon`"]);
    fails(bytes, &(events("") + "[filter]\nfrom = \"2020-01-01\"\n"), config, &["no time"]);
    let error = DatasetFile::open(Path::new("/nowhere/dataset.toml"), None).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.message().contains("/nowhere/dataset.toml"), "{error}");
}

#[test]
fn a_description_reads_from_its_own_folder_or_the_one_given() {
    let folder = Folder::new(&[("e.csv", b"user,item\nu,a\n")]);
    let path = folder.path().join("dataset.toml");
    std::fs::write(&path, events("")).unwrap();
    let elsewhere = Folder::new(&[("e.csv", b"user,item\nu,b\n")]);
    let read = |data| DatasetFile::open(&path, data).unwrap().read(&mut Silent, &Cancel::new()).unwrap();
    assert_eq!(history(&read(None), "u"), ["a"]);
    assert_eq!(history(&read(Some(elsewhere.path())), "u"), ["b"]);
    std::fs::write(&path, "name = 3").unwrap();
    assert!(DatasetFile::open(&path, None).unwrap_err().message().contains("dataset.toml"));
}

#[test]
fn cancelling_stops_the_reading_and_progress_reaches_the_size_of_the_file() {
    let folder = Folder::new(&[("e.csv", b"user,item\nu,a\n")]);
    let file = DatasetFile::parse(&events(""), folder.path()).unwrap();
    let cancel = Cancel::new();
    let mut seen = Vec::new();
    file.read(&mut |event: &ProgressEvent| seen.push(event.clone()), &cancel).unwrap();
    assert_eq!(seen[0], ProgressEvent::Stage { name: "read e.csv".into(), total: 14, unit: "bytes" });
    assert_eq!(seen[1], ProgressEvent::Advance { done: 14 });
    cancel.cancel();
    assert_eq!(file.read(&mut Silent, &cancel).unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn the_described_public_datasets_read_files_of_their_shape() {
    let folder = Folder::new(&[
        ("ml-1m_sas.txt", b"1 1\n1 2\n1 3\n2 3\n2 1\n2 2\n"),
        ("sas_to_original_items.txt", b"1 10\n2 20\n3 30\n"),
        (
            "movies.dat",
            b"30::Les Mis\xE9rables (1995)::Drama|Musical\n20::Toy (1996)::Comedy\n10::Heat (1995)::Drama\n",
        ),
        ("ratings.tsv", b"user_id\tmovie_id\trating\tpos\tpos_alt\n1\t10\t5\t2\t1\n1\t20\t1\t1\t2\n1\t30\t3\t3\t3\n"),
        (
            "movies_extrainfos.dat",
            b"10::Heat::1995::R::15 Dec 1995::Action, Crime::M. Mann::M. Mann::Al, Bob::A thief and a cop.::http://x\r\n\
              20::Toy::1996::G::N/A::Comedy::J. L.::J. L.::Tom, Tim::Toys come to life.::http://y\r\n",
        ),
        ("users.dat", b"1::F::1::10::48067\n"),
        ("u.data", b"1\t10\t5\t881250949\n1\t20\t3\t881250948\n1\t30\t3\t881250950\n"),
        ("u.item", b"10|Heat (1995)|01-Jan-1995||http://x|0|1|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0\n"),
        ("u.user", b"1|24|M|technician|85711\n"),
        (
            "users_interactions.csv",
            b"timestamp,eventType,contentId,personId,sessionId,userAgent,userRegion,userCountry\n\
              1465413032,VIEW,-5,-8,12,,,\n1465413033,LIKE,-6,-8,12,\"Mozilla (X, Y)\",NY,US\n",
        ),
        ("sequences.txt", b"1 1 2 3\n"),
        ("ratings.csv", b"userId,movieId,rating,timestamp\n1,10,2.5,1260759144\n1,20,3,1260759179\n2,30,5,1260759182\n"),
        ("movies.csv", b"movieId,title,genres\n10,Heat (1995),Action|Crime\n20,Toy (1996),Comedy\n30,Zoo (1997),Drama\n"),
        ("item2attributes.json", b"{\"1\": [1, 2], \"2\": [2]}"),
    ]);
    let mut read = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/datasets")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let file = DatasetFile::open(&path, Some(folder.path())).unwrap();
        let data = file.read(&mut Silent, &Cancel::new()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(file.protocol().is_some());
        assert_eq!(Some(file.name()), path.file_stem().and_then(|s| s.to_str()));
        if file.name() == "ml-1m-a" {
            assert_eq!(data.items.names(), ["3", "2", "1"]);
            assert_eq!(data.titles[0], "Les Mis\u{e9}rables (1995)");
            assert_eq!(data.released[1] - data.released[0], 365 * 86_400_000);
            assert_eq!(history(&data, "2"), ["3", "1", "2"]);
        }
        read += 1;
    }
    assert!(read >= 7, "{read}");
}

#[test]
fn the_documented_example_is_a_valid_description() {
    let docs = include_str!("../docs/dataset.md");
    let blocks: Vec<&str> = docs.split("```toml\n").skip(1).filter_map(|b| b.split("```").next()).collect();
    let whole: Vec<&&str> = blocks.iter().filter(|b| b.contains("name = ") && b.contains("[events]")).collect();
    assert!(whole.len() >= 2, "docs/dataset.md has {} whole descriptions", whole.len());
    for block in whole {
        DatasetFile::parse(block, Path::new(".")).unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
}

/// A description of items in `i.csv` beside the events.
const ITEMS: &str = "[items]\nfiles = \"i.csv\"\nid = \"id\"\ntitle = \"name\"\n";

#[test]
fn a_stray_quote_is_malformed_where_it_opens_and_swallows_no_row() {
    let toml = |tolerance: u32| format!("tolerance = {tolerance}\n{}", events("time = \"t\"\nrequest = [\"d\"]\n"));
    let rows = |open: &str, inner: &str, end: &str| format!("user,item,t,d\nu,a,1,tv\n{open}\n{inner}\n{end}\n");
    for (open, end) in [
        ("u,b,2,\"12 inch", "w,c,3,tv"),     // never closed
        ("u,\"b,2,tv", "w,c,3,tv"),          // in the middle
        ("\"u,b,2,tv", "w,c,3,\"\""),        // first column
        ("u,b,2,\"12 inch", "\"w\",c,3,tv"), // the next quote opens a column
        ("u,b,2,\"12 inch", "w,\"c\",3,\"tv\""),
        ("u,b,2,\"12 inch", "w,c,3,14 inch\""), // the next quote closes, but what lies between are rows
        ("u,\"b,2,tv", "w,c\",3,tv"),
        ("u,b,2,\"12 inch", "w,c,3,\"14\" inch"),
    ] {
        for inner in ["v,a,4,tv\nv,c,5,tv", "v,a,4,tv\n\nv,c,5,tv", "v,a,4,tv\r\nv,c,5,tv"] {
            let folder = Folder::new(&[("e.csv", rows(open, inner, end).as_bytes())]);
            let error = folder.read(&toml(0)).unwrap_err();
            let told = error.kind() == ErrorKind::InvalidData && error.message().contains("line 3: a quote opens here");
            assert!(told && error.message().contains("quote = false"), "{open} {end}: {error}");
            let (data, warnings) = folder.read_watched(&toml(1)).unwrap();
            assert!(warnings.len() == 1 && warnings[0].starts_with("1 malformed rows"), "{open} {end}: {warnings:?}");
            assert_eq!((history(&data, "v").len(), data.events.len()), (2, 4), "{open} {end}");
        }
    }
    // Of a record with a text of several lines, the line of the quote that fails is the one that is named.
    let broken = b"user,item,t,d\nu,a,1,x\n\"u\nv\",a,2,\"open\nw,a,3,x\n";
    fails(broken, &toml(0), ErrorKind::InvalidData, &["line 4: a quote opens here and is never closed"]);

    let folder = Folder::new(&[("e.csv", b"u,a,c\nv,\"d\nw,e,f\n")]);
    let sequence = "name = \"t\"\ntolerance = 1\n[events]\nfiles = \"e.csv\"\nlayout = \"sequence\"\n";
    let data = folder.read(sequence).unwrap();
    assert_eq!((history(&data, "u"), history(&data, "w")), (vec!["a", "c"], vec!["e", "f"]));

    let items = b"id,name\na,One\nb,\"12 inch\nc,Three\nd,Four\n";
    let folder = Folder::new(&[("e.csv", b"user,item\nu,a\nu,b\nu,c\nu,d\n"), ("i.csv", items)]);
    let toml = format!("tolerance = 1\n{}{ITEMS}", events(""));
    let error = folder.read(&toml.replace("tolerance = 1", "")).unwrap_err();
    assert!(error.message().contains("i.csv line 3: a quote opens"), "{error}");
    assert_eq!(folder.read(&toml).unwrap().titles, ["One", "Three", "Four", ""]);
}

#[test]
fn texts_of_several_lines_in_quotes_are_read() {
    let items = b"id,name\r\na,\"One\r\n\r\ntwo, with a comma\r\nand \"\"quotes\"\", too\"\r\n\"b\",\"x\n\"\nc,Three\nd,\"\n\nlast\"";
    let folder = Folder::new(&[("e.csv", b"user,item\nu,a\nu,b\nu,c\nu,d\n"), ("i.csv", items)]);
    let (data, warnings) = folder.read_watched(&format!("{}{ITEMS}", events(""))).unwrap();
    assert_eq!(data.titles, ["One\r\n\r\ntwo, with a comma\r\nand \"quotes\", too", "x\n", "Three", "\n\nlast"]);
    assert_eq!(warnings, [""; 0]);
    // Prose that happens to have the table's number of commas is no row, with or without a column that tells.
    let items = b"id,name\na,\"Hello\nworld, again\"\n";
    let folder = Folder::new(&[("e.csv", b"user,item,t,d\nu,a,1,\"a\nb,c,d,e\"\n"), ("i.csv", items)]);
    let toml = format!("{}{ITEMS}", events("time = \"t\"\nrequest = [\"d\"]\n"));
    let data = folder.read(&toml).unwrap();
    assert_eq!(data.titles, ["Hello\nworld, again"]);
    assert_eq!(data.schema.event_fields[0].field.kind, FieldKind::Categorical(vec!["a\nb,c,d,e".into()]));
    // Without a header, too.
    let folder = Folder::new(&[("e.csv", b"u,\"a\nb\"\nu,c\n")]);
    let numbered = "name = \"t\"\n[events]\nfiles = \"e.csv\"\nheader = false\nentity = 1\nitem = 2\n";
    assert_eq!(history(&folder.read(numbered).unwrap(), "u"), ["a\nb", "c"]);
}

#[test]
fn lines_are_counted_as_an_editor_counts_them_whatever_the_form() {
    let clean = "user,item,t\nu,a,1\n\n   \n \t \nu,b,2\nu,\"c\nd\",2\nu,e,bad\n";
    for (keys, delimiter) in
        [("", ","), ("delimiter = \";\"\nquote = true\n", ";"), ("delimiter = \"\\t\"\nquote = true\n", "\t")]
    {
        for end in ["\n", "\r\n"] {
            let bytes = clean.replace(',', delimiter).replace('\n', end);
            let keys = format!("{keys}time = \"t\"\n");
            fails(bytes.as_bytes(), &events(&keys), ErrorKind::InvalidData, &["a malformed row", "line 9: column `t`"]);
        }
    }
    for (keys, delimiter) in
        [("quote = false\n", ","), ("delimiter = \";\"\n", ";"), ("delimiter = \"whitespace\"\n", " ")]
    {
        for end in ["\n", "\r\n"] {
            let bytes = "user,item,t\nu,a,1\n\n   \n \t \nu,b,2\nu,e,bad\n".replace(',', delimiter).replace('\n', end);
            let keys = format!("{keys}time = \"t\"\n");
            fails(bytes.as_bytes(), &events(&keys), ErrorKind::InvalidData, &["a malformed row", "line 7: column `t`"]);
        }
    }
}

#[test]
fn a_row_without_an_end_is_told_at_its_line() {
    let head = b"user,item\na,x\n".as_slice();
    for long in [b'a', b',', b'"', 0] {
        let rows = [head, &vec![long; 5 << 20]].concat();
        fails(&rows, &events(""), ErrorKind::InvalidData, &["e.csv line 3", "longer than 4 MiB"]);
    }
    let bomb = gz(&[head, &vec![b'a'; 32 << 20]].concat());
    assert!(bomb.len() < 1 << 16);
    let error = Folder::new(&[("e.csv.gz", &bomb)]).read(&events("")).unwrap_err();
    assert!(error.message().contains("line 3: it is longer than 4 MiB"), "{error}");
}

#[test]
fn rows_whose_id_is_missing_are_left_out_and_counted() {
    let bytes = b"user,item\nu,a\nNULL,a\nu,NULL\nNULL,NULL\nu,b\n";
    let folder = Folder::new(&[("e.csv", bytes), ("i.csv", b"id,name\na,One\nNULL,None\nb,Two\n")]);
    let toml = events("missing = [\"NULL\"]\n") + ITEMS + "missing = [\"NULL\"]\n";
    let (data, warnings) = folder.read_watched(&toml).unwrap();
    assert_eq!((data.entities.names(), history(&data, "u")), (&["u".to_owned()][..], vec!["a", "b"]));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("4 rows without an id") && warnings[0].contains("i.csv line 3"), "{warnings:?}");

    // An empty id is a fault, unless it is declared.
    let bytes = b"user,item\nu,a\n,a\nu,\n";
    fails(bytes, &events("missing = [\"NULL\"]\n"), ErrorKind::InvalidData, &["line 3", "column `user`", "`missing`"]);
    let (data, warnings) = Folder::new(&[("e.csv", bytes)]).read_watched(&events("missing = [\"\"]\n")).unwrap();
    assert!(data.events.len() == 1 && warnings[0].starts_with("2 rows without"), "{warnings:?}");

    let folder = Folder::new(&[("e.csv", b"u NA a\nNA b\nv b NA c\n")]);
    let sequence =
        "name = \"t\"\n[events]\nfiles = \"e.csv\"\nlayout = \"sequence\"\ndelimiter = \" \"\nmissing = [\"NA\"]\n";
    let (data, warnings) = folder.read_watched(sequence).unwrap();
    assert_eq!((history(&data, "u"), history(&data, "v")), (vec!["a"], vec!["b", "c"]));
    assert!(warnings.len() == 1 && warnings[0].starts_with("3 rows without"), "{warnings:?}");
}

#[test]
fn a_label_that_is_nan_is_missing_however_it_is_declared() {
    let folder = Folder::new(&[("e.csv", b"user,item,y\nu,a,NaN\nu,b,nan\nu,c, NaN \nu,d,1\nu,e,0\n")]);
    for label in [
        "\"y\"",
        "{ column = \"y\", positive = \"= 1\" }",
        "{ column = \"y\", positive = \">= 1\", negative = \"< 1\" }",
    ] {
        let data = folder.read(&events(&format!("label = {label}\n"))).unwrap();
        let known: Vec<bool> = data.events.label.iter().map(|y| !y.is_nan()).collect();
        assert_eq!(
            (&known[..], &data.events.label[3..]),
            (&[false, false, false, true, true][..], &[1.0, 0.0][..]),
            "{label}"
        );
    }
}

#[test]
fn events_are_ordered_by_the_whole_time_before_it_is_cut() {
    for (format, times) in [
        ("s", ["1702387414.000002", "1702387414.000001", "1702387413.9"]),
        ("us", ["1702387414000002", "1702387414000001", "1702387413900000"]),
        ("ns", ["1702387414000000002", "1702387414000000001", "1702387413900000000"]),
        ("iso", ["2023-12-12T13:23:34.000002Z", "2023-12-12T13:23:34.000001Z", "2023-12-12T13:23:33.9Z"]),
    ] {
        let [c, b, a] = times;
        let bytes = format!("user,item,t\nv,x,{a}\nu,c,{c}\nu,b,{b}\nu,a,{a}\n");
        let folder = Folder::new(&[("e.csv", bytes.as_bytes())]);
        let (data, warnings) =
            folder.read_watched(&events(&format!("time = {{ column = \"t\", format = \"{format}\" }}\n"))).unwrap();
        assert_eq!(history(&data, "u"), ["a", "b", "c"], "{format}");
        let whole = [1_702_387_413_900, 1_702_387_414_000, 1_702_387_414_000];
        assert_eq!((&data.events.time[1..], warnings), (&whole[..], vec![]), "{format}");
    }
}

#[test]
fn a_unit_that_cannot_be_meant_is_told_with_the_one_that_fits() {
    let folder = Folder::new(&[("e.csv", b"user,item,t\nu,a,1702387414\nu,b,1702388459\n")]);
    let read =
        |format: &str| folder.read_watched(&events(&format!("time = {{ column = \"t\", format = \"{format}\" }}\n")));
    let (_, warnings) = read("ms").unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("1970-01-20") && warnings[0].contains("is it format = \"s\"?"), "{warnings:?}");
    assert_eq!(read("s").unwrap().1, [""; 0]);
    assert!(read("iso").unwrap_err().message().contains("is it format = \"s\"?"));
}

#[test]
fn a_first_row_that_was_taken_for_a_header_and_is_none_is_told() {
    let numbered = |keys: &str| format!("name = \"t\"\n[events]\nfiles = \"e.csv\"\nentity = 1\nitem = 2\n{keys}");
    let time = "time = { column = 3, format = \"iso\" }\n";
    for (bytes, keys, words) in [
        ("ann,lamp,2014-05-15\nbob,pen,2014-05-16\n", time, "column 3 holds `2014-05-15`"),
        ("17,lamp\n18,pen\n", "", "column 1 holds `17`"),
        ("ann,lamp,0.5\nbob,pen,1\n", "value = 3\n", "column 3 holds `0.5`"),
        ("ann,lamp\nbob,pen\nann,pen\n", "", "column 1 holds `ann`, which comes again in line 3"),
    ] {
        let folder = Folder::new(&[("e.csv", bytes.as_bytes())]);
        let error = folder.read(&numbered(keys)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.message().contains(words) && error.message().contains("header = false"), "{error}");
        let rows = bytes.lines().count();
        let (data, warnings) = folder.read_watched(&numbered(&format!("header = false\n{keys}"))).unwrap();
        assert!(data.events.len() == rows && warnings.is_empty(), "{bytes}: {warnings:?}");
        let (data, warnings) = folder.read_watched(&numbered(&format!("header = true\n{keys}"))).unwrap();
        assert!(data.events.len() == rows - 1 && warnings.len() == 1 && warnings[0].contains(words), "{warnings:?}");
    }
    let folder = Folder::new(&[("e.csv", b"user,item,at\nann,lamp,2014-05-15\n")]);
    assert_eq!(folder.read_watched(&numbered(time)).unwrap().1, [""; 0]);
}

#[test]
fn entities_that_come_again_in_a_sequence_are_told_and_merged() {
    let folder = Folder::new(&[("e.csv", b"2 a b\n3 a c d\n2 c e\n2 f g\n")]);
    let toml = "name = \"t\"\n[events]\nfiles = \"e.csv\"\nlayout = \"sequence\"\ndelimiter = \" \"\n";
    let (data, warnings) = folder.read_watched(toml).unwrap();
    assert_eq!(history(&data, "2"), ["a", "b", "c", "e", "f", "g"]);
    assert!(warnings.len() == 1 && warnings[0].starts_with("2 of the 4 rows of [events]"), "{warnings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the bytes are, reading ends with a dataset that holds its invariants or with an error.
    #[test]
    fn any_bytes_give_a_dataset_or_an_error(
        bytes in prop::collection::vec(prop::sample::select(b"user,item\n\r\"\t :;|1-\xff\xef\xbb\xbf\x81(){}[]".to_vec()), 0..200),
        head in prop::sample::select(vec!["", "user,item\n", "user,item,t\nu,i,1\n"]),
        keys in prop::sample::select(vec![
            "", "quote = false\n", "delimiter = \"whitespace\"\n", "encoding = \"utf-16le\"\n", "encoding = \"gbk\"\n",
            "header = false\ncolumns = [\"user\", \"item\"]\n", "time = 1\n", "time = { column = 1, format = \"trailing-year\" }\n",
            "time = { column = 1, format = \"%Y\" }\n", "label = { column = 1, positive = \"> 1\" }\norder = 2\n",
        ]),
        sequence in any::<bool>(),
        json in any::<bool>(),
    ) {
        let folder = Folder::new(&[("e.csv", &[head.as_bytes(), &bytes].concat()), ("e.csv.zst", &bytes), ("j", &bytes)]);
        let mut toml = format!("tolerance = 1000\n{}", events(keys));
        if sequence {
            toml = "name = \"t\"\ntolerance = 1000\n[events]\nfiles = \"e.csv\"\nlayout = \"sequence\"\n".to_owned();
        }
        if json {
            toml += "[items]\nfiles = \"j\"\nformat = \"json-lists\"\nmulti = [\"a\"]\n";
        }
        for toml in [toml.clone(), toml.replace("e.csv", "e.csv.zst")] {
            match folder.read(&toml) {
                Ok(data) => data.check().unwrap(),
                Err(e) => prop_assert!(e.kind() != ErrorKind::Internal && !e.message().is_empty()),
            }
        }
    }

    /// A description is never a reason to panic either.
    #[test]
    fn any_description_gives_a_file_or_an_error(text in "[a-z=\\[\\]{}\"0-9 \n.]{0,120}") {
        let _ = DatasetFile::parse(&text, Path::new("."));
    }
}
