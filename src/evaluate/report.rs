//! An evaluation as a table for people and as JSON for scripts.

use super::evaluation::{Evaluation, Row};
use super::metrics::RankMetric;
use crate::options::Seen;

/// The metrics of the table, in its order.
const COLUMNS: [&str; 8] = ["hr@1", "hr@10", "hr@50", "hr@200", "ndcg@10", "mrr", "coverage@10", "head_share@10"];

impl Evaluation {
    /// A plain table: what was asked, one line per method, the 95 % (or whichever was asked for) interval of NDCG@10,
    /// how the first method compares with the others, then NDCG@10 per group of questions. Lines end without blanks.
    pub fn table(&self) -> String {
        let short: String = self.target_hash.chars().take(12).collect();
        let mut text = format!(
            "{}: {} questions ({short}) over {} items, {:.1} s, peak memory {} MiB\n",
            self.protocol,
            self.targets,
            self.catalogue,
            self.seconds,
            self.peak_rss_bytes >> 20
        );
        text += &match (self.seen, self.repeats) {
            (Seen::Excluded, 0) => "seen items are excluded\n\n".to_owned(),
            (Seen::Excluded, n) => {
                format!("seen items are excluded: {n} more questions ask for one, and are not asked\n\n")
            }
            (Seen::Allowed, n) => format!("seen items are allowed: {n} questions ask for one\n\n"),
        };
        let mut lines = vec![header("method", COLUMNS.iter().chain(&["ndcg@10 interval"]))];
        for row in &self.rows {
            let mut line = vec![label(row)];
            line.extend(COLUMNS.iter().map(|key| row.metric(key).map_or_else(|| "-".into(), four)));
            line.push(row.interval.map_or_else(|| "-".into(), |i| span(i.ndcg_10)));
            lines.push(line);
        }
        text += &align(&lines);
        let versus: Vec<_> =
            self.differences.iter().filter(|d| matches!(d.metric, RankMetric::Ndcg10 | RankMetric::Hr10)).collect();
        if !versus.is_empty() {
            let mut lines = vec![header("difference", ["metric", "mean", "interval"].iter())];
            for d in versus {
                let interval = d.interval.map_or_else(|| "-".into(), span);
                lines.push(vec![
                    format!("{} - {}", d.name, d.versus),
                    d.metric.to_string(),
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
                line.extend(cut.rows.iter().map(|r| four(r.metrics.ranks.ndcg_10)));
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
        let mut report = serde_json::to_value(self).unwrap_or_default();
        if let Some(report) = report.as_object_mut() {
            report.insert("generation".into(), generation.into());
        }
        report
    }
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
