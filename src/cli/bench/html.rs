//! The report as a page of its own: the chart, the tables and the numbers behind them, in one file.
//!
//! Promises: it loads nothing; every text in it is escaped.

use super::report::Report;
use super::table;
use crate::cli::output::thousands;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
                     table{border-collapse:collapse;margin:1rem 0}\
                     th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
                     th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}\
                     pre{overflow:auto;background:#f6f6f6;padding:1rem}.warning{background:#fff3cd;padding:.5rem 1rem}";

/// The whole page. `svg` is the chart.
pub(super) fn page(report: &Report, svg: &str) -> String {
    let mut body = Vec::new();
    for line in table::machine(report).lines() {
        body.push(format!("<p>{}</p>\n", escape(line)));
    }
    for warning in &report.warnings {
        body.push(format!("<p class=\"warning\">{}</p>\n", escape(warning)));
    }
    body.push(svg.to_string());
    for point in &report.points {
        body.push(format!("<h2>{}</h2>\n", escape(&table::heading(&point.point))));
        let heads =
            ["mode", "records/s", "from – to", "MB/s", "CPU s/M", "peak memory", "syncs", "p50", "p99", "each once"];
        body.push(rows(&heads, point.modes.iter().map(table::row)));
        body.push(format!("<p>{}</p>\n", escape(&table::ratios(&point.ratios).join(" · "))));
    }
    if let Some(first) = report.latency.first() {
        body.push(format!("<h2>Latency at {} records/s</h2>\n", thousands(first.rate)));
        let heads = ["mode", "p50", "p99", "p99.9", "max", "records", "each once"];
        body.push(rows(&heads, report.latency.iter().map(table::latency_row)));
        body.push("<p>From the moment a record is due at the producer until its line is out.</p>\n".to_string());
    }
    let body = body.concat();
    let json = escape(&format!("{:#}", serde_json::json!(report)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>forebay bench</title>\
         <style>{STYLE}</style></head>\n<body><h1>forebay bench</h1>\n{body}\
         <details><summary>All numbers</summary><pre>{json}</pre></details>\n</body></html>\n"
    )
}

fn rows<const N: usize>(heads: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let cells = |tag: &str, cells: &[&str]| -> String {
        let each: Vec<_> = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        each.concat()
    };
    let rows: Vec<_> =
        rows.map(|row| format!("<tr>{}</tr>\n", cells("td", &row.each_ref().map(String::as_str)))).collect();
    format!("<table><tr>{}</tr>\n{}</table>\n", cells("th", heads), rows.concat())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
        let table = rows(&["a"], [["<b>".to_string()]].into_iter());
        assert!(table.contains("<th>a</th>") && table.contains("<td>&lt;b&gt;</td>"), "{table}");
    }
}
