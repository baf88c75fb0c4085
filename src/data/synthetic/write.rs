//! The world as the files that a user would bring: delimited text and the descriptions of how to read it.

use super::catalogue::CATEGORIES;
use super::entities::{ACTIONS, DEVICES, HOUSEHOLDS, REGIONS};
use super::names;
use super::world::{World, name};
use crate::data::moment::{iso_date, iso_time};
use crate::error::{Error, Result};
use std::fmt::Write;
use std::path::Path;

const DATASET: &str = r#"# A synthetic world: people who meet works. Written by `docent synth`; made up from the first row to the last.
name = "synthetic"

[events]
files = "events.csv"
delimiter = ","
header = true
entity = "person"
item = "item"
time = { column = "time", format = "iso" }
action = "action"
value = "minutes"
request = ["device"]
post_action = [{ column = "completion", kind = "numeric" }]

[items]
files = "items.csv"
delimiter = ","
header = true
id = "item"
title = "title"
released = { column = "launched", format = "iso" }
categorical = ["category"]
multi = [{ column = "tags", separator = "|" }, { column = "words", separator = "|" }]
numeric = ["minutes"]

[entities]
files = "people.csv"
delimiter = ","
header = true
id = "person"
profile = ["household", "region"]

[filter]
keep_unused_items = true

[split]
protocol = "leave-one-out"
"#;

const IMPRESSIONS: &str = r#"# What slates showed in the synthetic world, and what was clicked: labelled events for click prediction.
name = "synthetic-impressions"

[events]
files = "impressions.csv"
delimiter = ","
header = true
entity = "person"
item = "item"
time = { column = "time", format = "iso" }
label = "clicked"
request = [{ column = "position", kind = "numeric" }, "device"]

[items]
files = "items.csv"
delimiter = ","
header = true
id = "item"
title = "title"
released = { column = "launched", format = "iso" }
categorical = ["category"]
multi = [{ column = "tags", separator = "|" }, { column = "words", separator = "|" }]
numeric = ["minutes"]

[entities]
files = "people.csv"
delimiter = ","
header = true
id = "person"
profile = ["household", "region"]

[filter]
keep_unused_items = true
"#;

impl World {
    /// Writes `events.csv`, `impressions.csv`, `items.csv`, `people.csv`, `dataset.toml` (which reads the events) and
    /// `impressions.toml` (which reads the impressions) into the folder `dir`, which is made if it does not exist. Files
    /// of these names are replaced. The same world gives the same bytes.
    ///
    /// # Errors
    /// `Io`, `NoSpace` or `PermissionDenied`, naming the file.
    pub fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io("cannot create the folder", dir, e))?;
        let files = [
            ("events.csv", self.events_csv()),
            ("impressions.csv", self.impressions_csv()),
            ("items.csv", self.items_csv()),
            ("people.csv", self.entities_csv()),
            ("dataset.toml", DATASET.to_owned()),
            ("impressions.toml", IMPRESSIONS.to_owned()),
        ];
        for (file, text) in files {
            let path = dir.join(file);
            std::fs::write(&path, text).map_err(|e| Error::io("cannot write", &path, e))?;
        }
        Ok(())
    }

    fn events_csv(&self) -> String {
        let mut text = String::from("person,item,time,action,minutes,completion,device\n");
        for (entity, e) in self.log() {
            let (item, time) = (self.item_id(e.item), iso_time(e.time));
            let (action, device) = (name(&ACTIONS, e.action), name(&DEVICES, e.device));
            line(
                &mut text,
                format_args!("{},{item},{time},{action},{},{},{device}", entity.id, e.minutes, e.completion),
            );
        }
        text
    }

    fn impressions_csv(&self) -> String {
        let mut text = String::from("person,item,time,position,device,clicked\n");
        for i in &self.impressions {
            let (entity, item, time) = (self.entity_id(i.entity), self.item_id(i.item), iso_time(i.time));
            let (position, device, clicked) = (i.position, name(&DEVICES, i.device), u8::from(i.clicked));
            line(&mut text, format_args!("{entity},{item},{time},{position},{device},{clicked}"));
        }
        text
    }

    fn items_csv(&self) -> String {
        let mut text = String::from("item,title,launched,category,tags,words,minutes\n");
        for item in &self.items {
            let (launched, category) = (iso_date(item.launched), name(&CATEGORIES, item.category));
            let (tags, words) = (item.tags.join("|"), names::words(&item.title).join("|"));
            let title = quoted(&item.title);
            line(&mut text, format_args!("{},{title},{launched},{category},{tags},{words},{}", item.id, item.minutes));
        }
        text
    }

    fn entities_csv(&self) -> String {
        let mut text = String::from("person,household,region\n");
        for entity in &self.entities {
            let (household, region) = (name(&HOUSEHOLDS, entity.household), name(&REGIONS, entity.region));
            line(&mut text, format_args!("{},{household},{region}", entity.id));
        }
        text
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}

/// A value with quotes around it where the text needs them.
fn quoted(value: &str) -> String {
    if value.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", value.replace('"', "\"\""))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_quoted_where_needed() {
        assert_eq!(super::quoted("The Ferry (2014)"), "The Ferry (2014)");
        assert_eq!(super::quoted("Salt, \"and\" Tide"), "\"Salt, \"\"and\"\" Tide\"");
    }
}
