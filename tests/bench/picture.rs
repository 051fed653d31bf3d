//! The pictures of `tests/bench/README.md`, as SVG on white, with dark text.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use harness::page::thousands;
use harness::programs::HOST;

use crate::map::{self, Map};
use crate::subjects::Subject;
use crate::{Row, Value};

type Error = Box<dyn std::error::Error>;

const INK: RGBColor = RGBColor(30, 30, 30);
/// One colour for each subject or part of the file. All are light enough for dark text.
const COLOURS: [RGBColor; 8] = [
    RGBColor(240, 128, 96),
    RGBColor(190, 190, 190),
    RGBColor(120, 170, 225),
    RGBColor(110, 200, 190),
    RGBColor(185, 160, 225),
    RGBColor(230, 195, 90),
    RGBColor(150, 205, 130),
    RGBColor(235, 155, 195),
];

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Draws the comparison: for each row a group of bars with their values, as multiples of pause
/// on a logarithmic scale.
pub fn comparison(file: &str, subjects: &[Subject], rows: &[Row]) {
    draw_comparison(file, subjects, rows).unwrap_or_else(|e| crate::fail(&format!("{file}: {e}")));
}

/// The names of rows without a zero, and what the picture calls them.
fn drawn() -> [(String, &'static str); 6] {
    [
        (format!("file, {}", *HOST), "file, bytes"),
        (format!("image to pull, {}", *HOST), "image to pull"),
        ("resident".into(), "resident, bytes"),
        ("page tables".into(), "page tables, kB"),
        ("minor faults".into(), "minor faults"),
        ("exec to exit of -v".into(), "exec to exit, µs"),
    ]
}

/// The value as the picture shows it: times in microseconds.
fn shown(value: Value) -> String {
    match value {
        Value::Time(times) => format!("{:.0}", times.median as f64 / 1e3),
        value => thousands(value.number() as u64),
    }
}

fn draw_comparison(file: &str, subjects: &[Subject], rows: &[Row]) -> Result<(), Error> {
    const WIDTH: f64 = 0.9;
    const LOWEST: f64 = 0.1;
    let root = SVGBackend::new(file, (1100, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    // For each group the bars that have a value: subject, ratio to pause, and text.
    let mut groups = Vec::new();
    for (name, title) in drawn() {
        let row = rows
            .iter()
            .find(|row| row.name == name)
            .ok_or("a row is missing")?;
        let ours = row.values[0].ok_or("pause has no value")?.number();
        let bars = row.values.iter().enumerate();
        let bars = bars
            .filter_map(|(i, value)| Some((i, value.as_ref()?.number() / ours, shown((*value)?))));
        groups.push((title, bars.collect::<Vec<_>>()));
    }
    let gap = 1.5;
    let columns: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let width = columns as f64 + gap * groups.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(
            "What it costs, as a multiple of pause (logarithmic scale)",
            text(18),
        )
        .x_label_area_size(30)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..width, (LOWEST..20000.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.2))
        .axis_style(INK)
        .label_style(text(13))
        .x_labels(0)
        .y_label_formatter(&|y| format!("{y}×"))
        .draw()?;
    // A subject is in the legend once, with its bars of all groups.
    let mut bars = vec![Vec::new(); subjects.len()];
    let (mut x, mut titles, mut values) = (gap / 2.0, Vec::new(), Vec::new());
    for (title, group) in groups {
        titles.push((title, x + group.len() as f64 / 2.0));
        for (subject, ratio, value) in group {
            bars[subject].push((x, ratio));
            values.push((x + WIDTH / 2.0, ratio, value));
            x += 1.0;
        }
        x += gap;
    }
    for (subject, (of, bars)) in subjects.iter().zip(bars).enumerate() {
        let fill = COLOURS[subject % COLOURS.len()].filled();
        let boxes = bars.into_iter();
        let boxes = boxes.map(|(x, ratio)| Rectangle::new([(x, LOWEST), (x + WIDTH, ratio)], fill));
        chart
            .draw_series(boxes)?
            .label(&of.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], fill));
    }
    // The values stand upright in or above the bars.
    let upright = text(11).transform(FontTransform::Rotate270);
    let upright = upright.pos(Pos::new(HPos::Left, VPos::Center));
    chart.draw_series(values.into_iter().map(|(x, ratio, value)| {
        EmptyElement::at((x, ratio)) + Text::new(value, (0, -4), upright.clone())
    }))?;
    let centred = text(13).pos(Pos::new(HPos::Center, VPos::Top));
    chart.draw_series(titles.into_iter().map(|(title, x)| {
        EmptyElement::at((x, LOWEST)) + Text::new(title, (0, 8), centred.clone())
    }))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(text(13))
        .background_style(WHITE)
        .border_style(INK.mix(0.3))
        .draw()?;
    Ok(root.present()?)
}

/// The bytes of a line in the map, and the size of a byte and of a line in pixels.
const LINE: u64 = 32;
const BYTE: i32 = 13;
const HEIGHT: i32 = 18;

/// Draws the byte map of two files, with the name of each part in its block.
pub fn map(file: &str) {
    draw_map(file).unwrap_or_else(|e| crate::fail(&format!("{file}: {e}")));
}

fn draw_map(file: &str) -> Result<(), Error> {
    let maps = map::drawn();
    let lines = maps
        .iter()
        .map(|map| map.size().div_ceil(LINE))
        .max()
        .unwrap_or(0) as i32;
    let width = LINE as i32 * BYTE + 24;
    let size = (width * maps.len() as i32 + 24, lines * HEIGHT + 52);
    let root = SVGBackend::new(file, (size.0 as u32, size.1 as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let colours = colours(&maps);
    for (i, map) in maps.iter().enumerate() {
        let left = 24 + width * i as i32;
        let title = format!(
            "{}: {} bytes, {LINE} in a line",
            map.architecture,
            map.size()
        );
        root.draw(&Text::new(title, (left, 14), text(15)))?;
        for range in &map.ranges {
            draw_range(&root, range, COLOURS[colours[range.reason]], left)?;
        }
    }
    Ok(root.present()?)
}

/// The pieces of a range that are in one line: the line, and its bytes in it.
fn pieces(range: &map::Range) -> Vec<(u64, std::ops::Range<u64>)> {
    let (mut at, end) = (range.offset, range.offset + range.size);
    let mut pieces = Vec::new();
    while at < end {
        let line = at / LINE;
        let stop = end.min((line + 1) * LINE);
        pieces.push((line, at - line * LINE..stop - line * LINE));
        at = stop;
    }
    pieces
}

/// Whether two ranges touch, beside or above each other.
fn touch(one: &map::Range, other: &map::Range) -> bool {
    let near = |(line, bytes): &(u64, std::ops::Range<u64>),
                (below, others): &(u64, std::ops::Range<u64>)| {
        let overlap = bytes.start < others.end && others.start < bytes.end;
        let beside = bytes.end == others.start || others.end == bytes.start;
        (line == below && beside) || (line.abs_diff(*below) == 1 && overlap)
    };
    pieces(one)
        .iter()
        .any(|a| pieces(other).iter().any(|b| near(a, b)))
}

/// A colour for each part, such that parts that touch in any of the maps have different ones.
fn colours(maps: &[Map]) -> Vec<usize> {
    let mut colours: Vec<usize> = Vec::new();
    for reason in 0..map::COUNT {
        let taken = |colour: &usize| {
            maps.iter().any(|map| {
                let (ours, others): (Vec<&map::Range>, Vec<&map::Range>) =
                    map.ranges.iter().partition(|range| range.reason == reason);
                let others = others
                    .iter()
                    .filter(|range| colours.get(range.reason) == Some(colour));
                others
                    .into_iter()
                    .any(|other| ours.iter().any(|one| touch(one, other)))
            })
        };
        let start = reason % COLOURS.len();
        let mut choice = (0..COLOURS.len()).map(|i| (start + i) % COLOURS.len());
        let free = choice.find(|colour| !taken(colour));
        colours.push(free.expect("a colour that no neighbour has"));
    }
    colours
}

/// Draws a range line by line, and its name in the longest of its pieces.
fn draw_range(
    area: &DrawingArea<SVGBackend, Shift>,
    range: &map::Range,
    colour: RGBColor,
    left: i32,
) -> Result<(), Error> {
    let corner = |line: u64, byte: u64| (left + byte as i32 * BYTE, 40 + line as i32 * HEIGHT);
    let pieces = pieces(range);
    for (line, bytes) in &pieces {
        let (x, y) = corner(*line, bytes.start);
        let (end, _) = corner(*line, bytes.end);
        area.draw(&Rectangle::new(
            [(x, y), (end, y + HEIGHT)],
            colour.filled(),
        ))?;
    }
    let longest = pieces
        .iter()
        .max_by_key(|(_, bytes)| bytes.end - bytes.start);
    let (line, bytes) = longest.ok_or("an empty range")?;
    let (x, y) = corner(*line, bytes.start);
    let name = map::name(range.reason).replace('`', "");
    let style = text(12).pos(Pos::new(HPos::Left, VPos::Center));
    Ok(area.draw(&Text::new(name, (x + 4, y + HEIGHT / 2), style))?)
}
