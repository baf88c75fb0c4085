//! An evaluation as a table for people and as JSON for scripts.

use super::evaluation::{Evaluation, Row};

/// The metrics of the table, in its order.
const COLUMNS: [&str; 8] = ["hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "mrr", "coverage@10", "head_share@10"];

impl Evaluation {
    /// A plain table: what was asked, one line per method, the 95 % (or whichever was asked for) interval of NDCG@10,
    /// how the first method compares with the others, then NDCG@10 per group of questions. Lines end without blanks.
    pub fn table(&self) -> String {
        let short: String = self.target_hash.chars().take(12).collect();
        let mut text = format!(
            "{}: {} questions ({short}) over {} items, {:.1} s, peak memory {} MiB\n\n",
            self.protocol,
            self.targets,
            self.catalogue,
            self.seconds,
            self.peak_rss_bytes >> 20
        );
        let mut lines = vec![header("method", COLUMNS.iter().chain(&["ndcg@10 interval"]))];
        for row in &self.rows {
            let mut line = vec![label(row)];
            line.extend(COLUMNS.iter().map(|key| row.metric(key).map_or_else(|| "-".into(), four)));
            let interval = row.interval.iter().find(|i| i.0 == "ndcg@10").map(|i| i.1);
            line.push(interval.map_or_else(|| "-".into(), span));
            lines.push(line);
        }
        text += &align(&lines);
        let versus: Vec<_> = self.differences.iter().filter(|d| d.metric == "ndcg@10" || d.metric == "hr@10").collect();
        if !versus.is_empty() {
            let mut lines = vec![header("difference", ["metric", "mean", "interval"].iter())];
            for d in versus {
                let interval = d.interval.map_or_else(|| "-".into(), span);
                lines.push(vec![
                    format!("{} - {}", d.name, d.versus),
                    d.metric.clone(),
                    format!("{:+.4}", d.mean),
                    interval,
                ]);
            }
            text.push('\n');
            text += &align(&lines);
        }
        if !self.cuts.is_empty() {
            let names: Vec<&str> = self.rows.iter().map(|r| r.name.as_str()).collect();
            let mut lines = vec![header("ndcg@10 by", ["group", "questions"].iter().chain(&names))];
            for cut in &self.cuts {
                let mut line = vec![cut.by.clone(), cut.bucket.clone(), cut.targets.to_string()];
                line.extend(cut.rows.iter().map(|r| r.metric("ndcg@10").map_or_else(|| "-".into(), four)));
                lines.push(line);
            }
            text.push('\n');
            text += &align(&lines);
        }
        text
    }

    /// The evaluation as one JSON object with the keys of the command line's contract, naming the `generation` that was
    /// judged. Differences, and the metrics of each run where there are several, come on top.
    #[cfg(feature = "files")]
    pub fn json(&self, generation: &str) -> serde_json::Value {
        let cuts = self.cuts.iter().map(
            |c| serde_json::json!({"by": c.by, "bucket": c.bucket, "targets": c.targets, "rows": rows_json(&c.rows)}),
        );
        let differences = self.differences.iter().map(|d| {
            serde_json::json!({"name": d.name, "versus": d.versus, "metric": d.metric, "mean": d.mean, "interval": d.interval})
        });
        serde_json::json!({
            "generation": generation,
            "protocol": self.protocol,
            "targets": self.targets,
            "target_hash": self.target_hash,
            "catalogue": self.catalogue,
            "seconds": self.seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "rows": rows_json(&self.rows),
            "differences": differences.collect::<Vec<_>>(),
            "cuts": cuts.collect::<Vec<_>>(),
        })
    }
}

#[cfg(feature = "files")]
fn rows_json(rows: &[Row]) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let object = |pairs: &[(String, f64)]| pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>();
    let row = |row: &Row| {
        let interval: Map<_, _> = row.interval.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let mut found = json!({"name": row.name, "metrics": object(&row.metrics), "interval": interval});
        if let (true, Some(found)) = (row.runs.len() > 1, found.as_object_mut()) {
            let runs = row.runs.iter().map(|r| Value::Object(object(r))).collect();
            found.insert("runs".into(), Value::Array(runs));
        }
        found
    };
    rows.iter().map(row).collect()
}

fn label(row: &Row) -> String {
    if row.runs.len() > 1 { format!("{} (mean of {})", row.name, row.runs.len()) } else { row.name.clone() }
}

fn header<'a>(first: &str, rest: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(rest.map(|s| (*s).to_owned())).collect()
}

fn four(value: f64) -> String {
    format!("{value:.4}")
}

fn span([low, high]: [f64; 2]) -> String {
    format!("{low:.4} .. {high:.4}")
}

/// Cells side by side: the first column to the left, the others to the right.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| lines.iter().filter_map(|l| l.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (c, (cell, width)) in line.iter().zip(&widths).enumerate() {
            text += &if c == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_line_up() {
        let lines = [vec!["a".to_owned(), "long".to_owned()], vec!["bcd".to_owned(), "1".to_owned()]];
        assert_eq!(align(&lines), "a    long\nbcd     1\n");
    }
}
