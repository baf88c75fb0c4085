//! What `dataset.toml` may say: its tables and keys, one field each (docs/dataset.md explains them to users).

use super::column::Kind;
use super::split::Parameters;
use super::{Declaration, Duplicates, Protocol};
use crate::error::{Error, Result, err};
use crate::options::Seen;
use crate::schema::Timing;
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub name: String,
    #[serde(default)]
    pub tolerance: u64,
    pub events: EventsTable,
    pub items: Option<ItemsTable>,
    pub entities: Option<EntitiesTable>,
    #[serde(default)]
    pub filter: FilterTable,
    #[serde(default)]
    pub limits: LimitsTable,
    pub split: Option<SplitTable>,
    /// What the description calls by names of earlier versions.
    #[serde(skip)]
    pub renamed: Vec<String>,
}

/// How the files of one table are written.
#[derive(Debug, Clone)]
pub(super) struct Format {
    pub files: Vec<String>,
    pub delimiter: Option<String>,
    pub header: Option<bool>,
    pub columns: Vec<String>,
    pub encoding: Option<String>,
    pub quote: Option<bool>,
    pub missing: Vec<String>,
}

/// A table that describes delimited files: the keys of their format, then its own.
macro_rules! file_table {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            files: OneOrMany,
            delimiter: Option<String>,
            header: Option<bool>,
            #[serde(default)]
            columns: Vec<String>,
            encoding: Option<String>,
            quote: Option<bool>,
            #[serde(default)]
            missing: Vec<String>,
            $($(#[$meta])* pub $field: $type,)*
        }

        impl $name {
            pub fn format(&self) -> Format {
                Format {
                    files: self.files.list(),
                    delimiter: self.delimiter.clone(),
                    header: self.header,
                    columns: self.columns.clone(),
                    encoding: self.encoding.clone(),
                    quote: self.quote,
                    missing: self.missing.clone(),
                }
            }
        }
    };
}

file_table!(EventsTable {
    #[serde(default)]
    layout: Layout,
    entity: Option<ColumnRef>,
    item: Option<ColumnRef>,
    time: Option<TimeRole>,
    order: Option<ColumnRef>,
    action: Option<ColumnRef>,
    value: Option<ColumnRef>,
    label: Option<LabelRole>,
    request: Option<Vec<FieldRole>>,
    post_action: Option<Vec<FieldRole>>,
    /// The name of `request` in earlier versions.
    context: Option<Vec<FieldRole>>,
    /// The name of `post_action` in earlier versions.
    outcome: Option<Vec<FieldRole>>,
});

file_table!(ItemsTable {
    #[serde(default)]
    format: ItemFormat,
    id: Option<ColumnRef>,
    title: Option<ColumnRef>,
    released: Option<TimeRole>,
    #[serde(default)]
    categorical: Vec<NamedColumn>,
    #[serde(default)]
    multi: Vec<ListRole>,
    #[serde(default)]
    flags: Vec<FlagsRole>,
    #[serde(default)]
    numeric: Vec<NamedColumn>,
    #[serde(default)]
    vector: Vec<VectorRole>,
    id_map: Option<IdMapTable>,
});

file_table!(EntitiesTable {
    id: ColumnRef,
    #[serde(default)]
    profile: Vec<FieldRole>,
    id_map: Option<IdMapTable>,
});

file_table!(IdMapTable { from: ColumnRef, to: ColumnRef });

#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Layout {
    /// One event a row.
    #[default]
    Rows,
    /// One entity a row, then all its items, oldest first.
    Sequence,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ItemFormat {
    /// One item a row.
    #[default]
    Rows,
    /// One JSON object: item id to the list of its values.
    JsonLists,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a file name or a list of file names")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn list(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

/// A column by its name or by its number from 1.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a column: its name, or its number counted from 1")]
pub(super) enum ColumnRef {
    Name(String),
    Number(u32),
}

impl std::fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a column, or { column = ..., format = \"s\", \"ms\", \"iso\", ... }")]
pub(super) enum TimeRole {
    Column(ColumnRef),
    Table(TimeTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeTable {
    pub column: ColumnRef,
    pub format: Option<String>,
}

impl TimeRole {
    /// The column, and the format or else `default`.
    pub fn parts(&self, default: &'static str) -> (&ColumnRef, &str) {
        match self {
            Self::Column(column) => (column, default),
            Self::Table(table) => (&table.column, table.format.as_deref().unwrap_or(default)),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a column, or { column = ..., positive = \">= 4\", negative = \"<= 2\" }")]
pub(super) enum LabelRole {
    Column(ColumnRef),
    Table(LabelTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelTable {
    pub column: ColumnRef,
    pub positive: String,
    pub negative: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FieldRoleKind {
    #[default]
    Categorical,
    Numeric,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "a column name, or { column = ..., name = \"...\", kind = \"categorical\" or \"numeric\" }"
)]
pub(super) enum FieldRole {
    Name(String),
    Table(FieldTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldTable {
    pub column: ColumnRef,
    pub name: Option<String>,
    #[serde(default)]
    pub kind: FieldRoleKind,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a column name, or { column = ..., name = \"...\" }")]
pub(super) enum NamedColumn {
    Name(String),
    Table(NamedColumnTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedColumnTable {
    pub column: ColumnRef,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a column name, or { column = ..., name = \"...\", separator = \"|\" }")]
pub(super) enum ListRole {
    Name(String),
    Table(ListTable),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTable {
    pub column: ColumnRef,
    pub name: Option<String>,
    pub separator: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlagsRole {
    pub name: String,
    pub columns: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VectorRole {
    pub column: ColumnRef,
    pub name: Option<String>,
    pub separator: Option<String>,
    pub dim: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterTable {
    #[serde(default)]
    pub min_item_events: u64,
    #[serde(default)]
    pub min_entity_events: u64,
    #[serde(default)]
    pub iterate: bool,
    pub from: Option<String>,
    pub to: Option<String>,
    #[serde(default, deserialize_with = "written")]
    pub duplicates: Duplicates,
    #[serde(default)]
    pub keep_unused_items: bool,
}

/// Reads a value as its type writes it.
fn written<'de, D: Deserializer<'de>, T: FromStr<Err = Error>>(deserializer: D) -> std::result::Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(|e: Error| serde::de::Error::custom(e.message()))
}

/// The same for a key that may be left out.
fn maybe_written<'de, D: Deserializer<'de>, T: FromStr<Err = Error>>(
    deserializer: D,
) -> std::result::Result<Option<T>, D::Error> {
    written(deserializer).map(Some)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub vocabulary: Option<usize>,
    pub buckets: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitTable {
    protocol: Option<String>,
    #[serde(default, deserialize_with = "maybe_written")]
    pub seen: Option<Seen>,
    hours: Option<f64>,
    test: Option<f64>,
    validation: Option<f64>,
    share: Option<f64>,
    seed: Option<u64>,
}

impl SplitTable {
    /// The protocol; `None` where the table leaves it open.
    pub fn protocol(&self) -> Result<Option<Protocol>> {
        let Self { hours, test, validation, share, seed, .. } = *self;
        let parameters = Parameters { hours, test, validation, share, seed };
        match &self.protocol {
            Some(name) => Protocol::from_parts(name, parameters).map(Some),
            None if parameters.is_empty() => Ok(None),
            None => Err(err!(InvalidConfig, "[split] has parameters of a protocol but no `protocol`; name it")),
        }
    }
}

/// What to read from a column, and the name of the field that it fills.
#[derive(Debug, Clone)]
pub(super) struct FieldSource {
    pub name: String,
    pub read: ReadAs,
}

/// How a field is read from a row.
#[derive(Debug, Clone)]
pub(super) enum ReadAs {
    Text(ColumnRef),
    Number(ColumnRef),
    List(ColumnRef, String),
    Flags(Vec<String>),
    Vector(ColumnRef, String, u32),
}

impl FieldSource {
    fn new(name: Option<&String>, column: &ColumnRef, read: ReadAs) -> Result<Self> {
        match (name, column) {
            (Some(name), _) | (None, ColumnRef::Name(name)) => Ok(Self { name: name.clone(), read }),
            (None, ColumnRef::Number(n)) => {
                Err(err!(InvalidConfig, "the field in column {n} has no name; write `name = \"...\"` beside `column`"))
            }
        }
    }

    fn kind(&self) -> Kind {
        match &self.read {
            ReadAs::Text(_) => Kind::Categorical,
            ReadAs::Number(_) => Kind::Numeric,
            ReadAs::List(..) | ReadAs::Flags(_) => Kind::MultiValued,
            ReadAs::Vector(_, _, dim) => Kind::Vector(*dim),
        }
    }
}

impl FieldRole {
    fn source(&self) -> Result<FieldSource> {
        let table = match self {
            Self::Name(name) => {
                let column = ColumnRef::Name(name.clone());
                FieldTable { column, name: None, kind: FieldRoleKind::Categorical }
            }
            Self::Table(table) => table.clone(),
        };
        let read = match table.kind {
            FieldRoleKind::Categorical => ReadAs::Text(table.column.clone()),
            FieldRoleKind::Numeric => ReadAs::Number(table.column.clone()),
        };
        FieldSource::new(table.name.as_ref(), &table.column, read)
    }
}

impl EventsTable {
    /// Takes what stands under names of earlier versions, and says what to rename.
    fn take_old_names(&mut self) -> Result<Vec<String>> {
        let mut renamed = Vec::new();
        for (old, new, from, to) in [
            ("context", "request", self.context.take(), &mut self.request),
            ("outcome", "post_action", self.outcome.take(), &mut self.post_action),
        ] {
            if from.is_some() && to.is_some() {
                return Err(err!(
                    InvalidConfig,
                    "[events] has `{new}` and `{old}`, which was its name before; put all fields into `{new}`"
                ));
            }
            if from.is_some() {
                renamed.push(format!("[events] `{old}` is called `{new}` now; rename the key, the old name will go"));
                *to = from;
            }
        }
        Ok(renamed)
    }

    /// The declared fields: those known at the request first, then those known after the action.
    pub fn sources(&self) -> Result<Vec<(FieldSource, Timing)>> {
        let known = |fields: &Option<Vec<FieldRole>>, timing| {
            fields.iter().flatten().map(|role| Ok((role.source()?, timing))).collect::<Vec<_>>()
        };
        let request = known(&self.request, Timing::Request);
        request.into_iter().chain(known(&self.post_action, Timing::PostAction)).collect()
    }
}

impl EntitiesTable {
    pub fn sources(&self) -> Result<Vec<FieldSource>> {
        self.profile.iter().map(FieldRole::source).collect()
    }
}

impl ItemsTable {
    /// The declared fields: categorical, multi, flags, numeric, vector, each in order of declaration.
    pub fn sources(&self) -> Result<Vec<FieldSource>> {
        let named = |role: &NamedColumn, read: fn(ColumnRef) -> ReadAs| {
            let table = match role {
                NamedColumn::Name(name) => NamedColumnTable { column: ColumnRef::Name(name.clone()), name: None },
                NamedColumn::Table(table) => table.clone(),
            };
            FieldSource::new(table.name.as_ref(), &table.column, read(table.column.clone()))
        };
        let separator = |given: &Option<String>, default: &str| match given.as_deref() {
            Some("") => Err(err!(InvalidConfig, "`separator` is empty; write what stands between two values")),
            given => Ok(given.unwrap_or(default).to_owned()),
        };
        let mut sources = Vec::new();
        for role in &self.categorical {
            sources.push(named(role, ReadAs::Text)?);
        }
        for role in &self.multi {
            let table = match role {
                ListRole::Name(name) => {
                    ListTable { column: ColumnRef::Name(name.clone()), name: None, separator: None }
                }
                ListRole::Table(table) => table.clone(),
            };
            let read = ReadAs::List(table.column.clone(), separator(&table.separator, "|")?);
            sources.push(FieldSource::new(table.name.as_ref(), &table.column, read)?);
        }
        for role in &self.flags {
            if role.columns.is_empty() {
                return Err(err!(InvalidConfig, "flags `{}` names no column; list them in `columns`", role.name));
            }
            sources.push(FieldSource { name: role.name.clone(), read: ReadAs::Flags(role.columns.clone()) });
        }
        for role in &self.numeric {
            sources.push(named(role, ReadAs::Number)?);
        }
        for role in &self.vector {
            let read = ReadAs::Vector(role.column.clone(), separator(&role.separator, " ")?, role.dim);
            sources.push(FieldSource::new(role.name.as_ref(), &role.column, read)?);
        }
        Ok(sources)
    }
}

impl Description {
    /// Reads the text of a `dataset.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut description: Self = toml::from_str(text).map_err(|e| {
            err!(InvalidConfig, "{}; correct that key (docs/dataset.md lists them all)", e.to_string().trim_end())
        })?;
        description.renamed = description.events.take_old_names()?;
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<()> {
        let events = &self.events;
        match events.layout {
            Layout::Rows => {
                for (role, given) in [("entity", events.entity.is_some()), ("item", events.item.is_some())] {
                    if !given {
                        return Err(err!(InvalidConfig, "[events] has no `{role}`; name the column that holds it"));
                    }
                }
            }
            Layout::Sequence => {
                let roles = [
                    ("entity", events.entity.is_some()),
                    ("item", events.item.is_some()),
                    ("time", events.time.is_some()),
                    ("order", events.order.is_some()),
                    ("action", events.action.is_some()),
                    ("value", events.value.is_some()),
                    ("label", events.label.is_some()),
                    ("request", events.request.is_some()),
                    ("post_action", events.post_action.is_some()),
                    ("columns", !events.columns.is_empty()),
                ];
                if let Some((role, _)) = roles.iter().find(|(_, given)| *given) {
                    return Err(err!(
                        InvalidConfig,
                        "[events] has `{role}`, but a row of layout \"sequence\" is an entity and its items, nothing \
                         else; remove `{role}` or the layout"
                    ));
                }
            }
        }
        if let Some(items) = &self.items {
            match items.format {
                ItemFormat::Rows if items.id.is_none() => {
                    return Err(err!(InvalidConfig, "[items] has no `id`; name the column that holds it"));
                }
                ItemFormat::Rows => {}
                ItemFormat::JsonLists => {
                    let other = items.id.is_some()
                        || items.title.is_some()
                        || items.released.is_some()
                        || !(items.columns.is_empty() && items.flags.is_empty() && items.vector.is_empty())
                        || !(items.categorical.is_empty() && items.numeric.is_empty());
                    if other || !matches!(items.multi.as_slice(), [ListRole::Name(_)]) {
                        return Err(err!(
                            InvalidConfig,
                            "[items] of format \"json-lists\" takes `files`, one name in `multi` (such as multi = \
                             [\"attributes\"]) and `id_map`; remove the other keys"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// What the rows of the described files will carry.
    pub fn declaration(&self) -> Result<Declaration> {
        let events = &self.events;
        let named = |source: FieldSource| (source.name.clone(), source.kind());
        Ok(Declaration {
            name: self.name.clone(),
            time: events.time.is_some(),
            order: events.order.is_some(),
            action: events.action.is_some(),
            value: events.value.is_some(),
            label: events.label.is_some(),
            title: self.items.as_ref().is_some_and(|t| t.title.is_some()),
            released: self.items.as_ref().is_some_and(|t| t.released.is_some()),
            event_fields: (events.sources()?.into_iter())
                .map(|(source, timing)| (source.name.clone(), source.kind(), timing))
                .collect(),
            item_fields: match &self.items {
                Some(items) => items.sources()?.into_iter().map(named).collect(),
                None => Vec::new(),
            },
            entity_fields: match &self.entities {
                Some(entities) => entities.sources()?.into_iter().map(named).collect(),
                None => Vec::new(),
            },
        })
    }
}
