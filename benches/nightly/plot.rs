//! Wall time against the share of changed documents, as SVG: both axes by powers of ten, nothing changed at the left.

use std::fmt::Write as _;

use crate::contestant::{Contestant, PEERS};
use crate::results::Results;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
/// Around the plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 44.0, 190.0, 52.0];
/// Of each line, told apart by those who see no colours by its dashes.
const STYLES: [(&str, &str); 7] = [
    ("#0b6e4f", ""),
    ("#c1121f", "2 3"),
    ("#c1121f", ""),
    ("#c1121f", "6 4"),
    ("#1d4e89", ""),
    ("#1d4e89", "6 4"),
    ("#777777", "2 3"),
];
/// Where nothing changed stands, as a share in percent.
const NOTHING: f64 = 0.01;

/// A contestant's line: share in percent and wall time in seconds.
struct Line {
    name: &'static str,
    style: (&'static str, &'static str),
    points: Vec<(f64, f64)>,
}

/// The plot of the first size that was measured.
pub fn svg(results: &Results) -> String {
    let documents = results.cells.first().map_or(0, |cell| cell.documents);
    let lines = lines(results, documents);
    let walls = || lines.iter().flat_map(|line| line.points.iter().map(|(_, wall)| *wall));
    let low = walls().fold(f64::MAX, f64::min).log10().floor();
    let high = walls().fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
    let scale = Scale { low, high: high.max(low + 1.0) };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{}\" y=\"24\" font-size=\"15\">One night of {} documents: wall time in seconds</text>\n",
        MARGIN[0],
        crate::table::number(documents.into()),
    );
    if !lines.is_empty() {
        axes(&mut svg, &scale);
        lines.iter().for_each(|line| draw(&mut svg, &scale, line));
        legend(&mut svg, &lines);
    }
    svg + "</svg>\n"
}

fn lines(results: &Results, documents: u32) -> Vec<Line> {
    let contestants = [Contestant::Rowdelta].into_iter().chain(PEERS).chain([Contestant::Planned]);
    let line = |(contestant, style): (Contestant, (&'static str, &'static str))| {
        let cells =
            results.cells.iter().filter(|cell| cell.documents == documents && cell.contestant == contestant);
        let points =
            cells.filter_map(|cell| Some((cell.scenario.share?.max(NOTHING), cell.wall()))).collect();
        Line { name: contestant.name(), style, points }
    };
    contestants.zip(STYLES).map(line).filter(|line| !line.points.is_empty()).collect()
}

/// Powers of ten of the lowest and the highest wall time.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, share: f64) -> f64 {
        let part = (share.log10() - NOTHING.log10()) / (2.0 - NOTHING.log10());
        MARGIN[0] + part * (WIDTH - MARGIN[0] - MARGIN[2])
    }

    fn y(&self, wall: f64) -> f64 {
        let part = (wall.log10() - self.low) / (self.high - self.low);
        HEIGHT - MARGIN[3] - part * (HEIGHT - MARGIN[1] - MARGIN[3])
    }
}

fn axes(svg: &mut String, scale: &Scale) {
    let (left, right) = (MARGIN[0], WIDTH - MARGIN[2]);
    let (top, bottom) = (MARGIN[1], HEIGHT - MARGIN[3]);
    for power in scale.low as i32..=scale.high as i32 {
        let (wall, y) = (10f64.powi(power), scale.y(10f64.powi(power)));
        let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{wall}</text>",
            left - 8.0,
            y + 4.0
        );
    }
    for (share, label) in [(NOTHING, "0"), (0.1, "0.1"), (1.0, "1"), (10.0, "10"), (100.0, "100")] {
        let x = scale.x(share);
        let _ = writeln!(svg, "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#eee\"/>");
        let _ =
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 18.0);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">documents changed, percent</text>",
        (left + right) / 2.0,
        bottom + 38.0
    );
}

fn draw(svg: &mut String, scale: &Scale, line: &Line) {
    let places: Vec<(f64, f64)> =
        line.points.iter().map(|(share, wall)| (scale.x(*share), scale.y(*wall))).collect();
    let points: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (colour, dashes) = line.style;
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>",
        points.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

fn legend(svg: &mut String, lines: &[Line]) {
    let x = WIDTH - MARGIN[2] + 20.0;
    for (at, line) in lines.iter().enumerate() {
        let y = MARGIN[1] + 14.0 + 22.0 * at as f64;
        let (colour, dashes) = line.style;
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {y}h30\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            x + 38.0,
            y + 4.0,
            line.name
        );
    }
}
