//! Descriptions of datasets, and the files that they describe.

use super::checks::sound;
use docent::data::{Dataset, DatasetFile, Protocol, Split};
use docent::progress::{Cancel, ProgressEvent};
use std::fs;
use std::path::{Path, PathBuf};

/// The bytes between two files in one input.
const NEXT_FILE: &[u8] = b"\n\x1e\n";

/// How files of rows are described; the first byte of an input says by which.
const DESCRIPTIONS: [&str; 13] = [
    "[events]\nfiles='a'\nentity='user'\nitem='item'\ntime='at'\naction='action'\nvalue='value'\nlabel='label'\n\
     request=['device',{column='hour',kind='numeric'}]\npost_action=['seconds']\n\
     [items]\nfiles='b'\nid='id'\ntitle='title'\nreleased='released'\ncategorical=['brand']\nmulti=['tags']\n\
     numeric=['price']\nvector=[{column='vector',dim=3}]\nflags=[{name='form',columns=['x','y']}]\n\
     [entities]\nfiles='c'\nid='id'\nprofile=['country',{column='age',kind='numeric'}]\n",
    "tolerance=1000\n[events]\nfiles='a'\nentity='user'\nitem='item'\ntime={column='at',format='iso'}\n\
     [items]\nfiles='b'\nid='id'\nmulti=[{column='tags',separator=','}]\n\
     id_map={files='c',header=false,from=2,to=1}\n",
    "[events]\nfiles='a'\ndelimiter='\\t'\nheader=false\nentity=1\nitem=2\ntime=4\nvalue=3\nlabel={column=3,positive='>= 4',negative='<= 2'}\n",
    "[events]\nfiles='a'\ndelimiter='::'\nheader=false\nentity=1\nitem=2\ntime={column=4,format='ms'}\n\
     [items]\nfiles='b'\ndelimiter='::'\nencoding='iso-8859-1'\ncolumns=['id','title','genres']\nid='id'\ntitle='title'\n\
     released={column='title',format='trailing-year'}\nmulti=[{column='genres',separator='|'}]\n",
    "[events]\nfiles='a'\ndelimiter='whitespace'\nlayout='sequence'\n",
    "tolerance=5\n[events]\nfiles='a'\ndelimiter=';'\nquote=true\nentity='u'\nitem='i'\norder='n'\nmissing=['NA','']\n\
     [filter]\nduplicates='keep-last'\nmin_item_events=2\nmin_entity_events=2\niterate=true\n",
    "[events]\nfiles='a'\nencoding='utf-16le'\nentity='user'\nitem='item'\ntime={column='at',format='%d-%b-%Y'}\n",
    "[events]\nfiles='a'\nencoding='gb18030'\nentity='user'\nitem='item'\ntime={column='at',format='%Y/%m/%d %H:%M:%S%.f %z'}\n",
    "[events]\nfiles='a.gz'\nentity='user'\nitem='item'\ntime={column='at',format='us'}\n",
    "[events]\nfiles='a.zst'\nentity='user'\nitem='item'\ntime={column='at',format='ns'}\n",
    "[events]\nfiles='a'\nencoding='iso-2022-jp'\nentity='user'\nitem='item'\ntime={column='at',format='year'}\n",
    "[events]\nfiles='a'\nentity='user'\nitem='item'\nvalue='value'\naction='action'\nlabel={column='value',positive='= 5'}\n\
     [limits]\nvocabulary=2\nbuckets=2\n[filter]\nfrom='2001-01-01'\nto='2020-01-01'\nduplicates='error'\nkeep_unused_items=true\n",
    "tolerance=1000000\n[events]\nfiles='a'\nentity='user'\nitem='item'\ntime='at'\n[split]\nprotocol='time-split'\n",
];

/// Files that go with all of these, where an input has none.
const SOUND: [&str; 3] = [
    "user,item,at,action,value,label,device,hour,seconds\nann,lamp,1700000000,view,1,1,tv,7,3\n\
     ann,desk,1700000100,buy,5,0,phone,8,\nbob,lamp,1700000200,view,2,,tv,,4\nbob,rug,1700000300,view,2,1,tv,9,5\n\
     ann,rug,1700000400,view,2,1,tv,9,5\nbob,desk,1700000500,view,3,1,,9,5\n",
    "id,title,released,brand,tags,price,vector,x,y\nlamp,A lamp,2001-02-03,oak,a|b,1.5,1 2 3,1,0\n\
     desk,\"A \"\"desk\"\", large\",,oak,,2,,0,1\nrug,,1999-12-31T23:59:59Z,,b,,0 0 1,0,0\n",
    "id,country,age\nann,nl,30\nbob,fr,\n",
];

thread_local! {
    static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap();
    /// What a `dataset.toml` may describe.
    static DATA: tempfile::TempDir = {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("events.csv", SOUND[0]),
            ("items.csv", SOUND[1]),
            ("people.csv", SOUND[2]),
            ("rows.tsv", "1\t10\t5\t1700000000\n1\t11\t3\t1700000001\n2\t10\t1\t1700000002\n"),
            ("lines.txt", "1 2 3 4\n2 3 4 5 6\n"),
            ("lists.json", "{\"lamp\": [\"a\", 7], \"desk\": []}"),
            ("films.dat", "1::Toy Story (1995)::Animation|Comedy\n2::Heat::Crime\n"),
            ("map.txt", "1 10\n2 11\n"),
        ];
        files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
        folder
    };
}

/// Files of rows, whose description is chosen by the first byte.
pub fn csv(bytes: &[u8]) {
    let (which, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let description = DESCRIPTIONS[usize::from(*which) % DESCRIPTIONS.len()];
    FOLDER.with(|folder| {
        let mut rest = Some(rest);
        for (name, sound) in ["a", "b", "c"].into_iter().zip(SOUND) {
            let file = match rest {
                Some(bytes) => {
                    let end = bytes.windows(NEXT_FILE.len()).position(|window| window == NEXT_FILE);
                    rest = end.map(|end| &bytes[end + NEXT_FILE.len()..]);
                    &bytes[..end.unwrap_or(bytes.len())]
                }
                None => sound.as_bytes(),
            };
            let name = description.split('\'').find(|part| part.split('.').next() == Some(name)).unwrap_or(name);
            fs::write(folder.path().join(name), file).unwrap();
        }
        read(&format!("name='shop'\n{description}"), folder.path());
    });
}

/// A file of lists in JSON.
pub fn lists(name: &str, bytes: &[u8]) {
    FOLDER.with(|folder| {
        fs::write(folder.path().join(name), bytes).unwrap();
        fs::write(folder.path().join("a"), SOUND[0]).unwrap();
        let description = format!(
            "name='shop'\n[events]\nfiles='a'\nentity='user'\nitem='item'\n[items]\nfiles='{name}'\n\
             format='json-lists'\nmulti=['tags']\n"
        );
        read(&description, folder.path());
    });
}

/// A description, and what it makes of some files.
pub fn dataset_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // It may name any file of this machine, which is none of what is tested.
    let abroad = text.contains(['/', '\\']) || text.contains("..") || text.contains("**");
    DATA.with(|data| match abroad {
        true => drop(sound(DatasetFile::parse(text, &PathBuf::new()))),
        false => read(text, data.path()),
    });
}

/// Reads what a description describes.
fn read(description: &str, folder: &Path) {
    let Some(file) = sound(DatasetFile::parse(description, folder)) else { return };
    let mut told = |event: &ProgressEvent| {
        if let ProgressEvent::Warning(what) | ProgressEvent::Note(what) = event {
            assert!(!what.is_empty());
        }
    };
    let Some(data) = sound(file.read(&mut told, &Cancel::new())) else { return };
    check(&data);
    sound(Split::new(&data, file.protocol().unwrap_or(&Protocol::LeaveOneOut)));
}

/// That a dataset is whole: columns have a value for each event, rows and codes are there, times ascend.
fn check(data: &Dataset) {
    let (events, items) = (&data.events, data.items.len());
    let count = events.item.len();
    assert_eq!(events.offsets.len(), data.entities.len() + 1);
    assert!(events.offsets.is_sorted() && events.offsets.last() == Some(&(count as u64)), "{:?}", events.offsets);
    assert!(events.item.iter().all(|row| (*row as usize) < items));
    assert!(
        [events.time.len(), events.action.len(), events.value.len(), events.label.len()]
            .iter()
            .all(|n| [0, count].contains(n))
    );
    assert!(events.action.iter().all(|code| usize::from(*code) < data.schema.actions.len()));
    let numbers = events.value.iter().chain(&events.label);
    assert!(numbers.into_iter().all(|x| !x.is_infinite()), "a number is infinite");
    for entity in 0..data.entities.len() as u32 {
        let range = data.range(entity);
        assert!(!range.is_empty(), "an entity without events is kept");
        assert!(events.time.get(range).unwrap_or(&[]).is_sorted(), "times do not ascend");
    }
    assert!([&data.titles.len(), &data.released.len()].iter().all(|n| [0, items].contains(n)));
    let ids = [&data.items, &data.entities].into_iter().flat_map(|ids| ids.names());
    assert!(ids.into_iter().all(|id| !id.is_empty()), "an empty id");
}
