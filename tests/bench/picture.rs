//! The pictures in README, as SVG without a background. Their colours can be read on a light
//! and on a dark page.

use plotters::coord::Shift;
use plotters::prelude::*;

use harness::programs::HOST;

use crate::map;
use crate::subjects::Subject;
use crate::{Row, Value};

type Error = Box<dyn std::error::Error>;

/// Can be read on white and on black.
const GREY: RGBColor = RGBColor(128, 128, 128);
/// One colour for each subject or part of the file.
const COLOURS: [RGBColor; 8] = [
    RGBColor(222, 91, 59),
    RGBColor(128, 128, 128),
    RGBColor(66, 133, 200),
    RGBColor(64, 160, 160),
    RGBColor(140, 110, 190),
    RGBColor(190, 150, 40),
    RGBColor(90, 160, 80),
    RGBColor(200, 100, 150),
];

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&GREY)
}

/// Draws the comparison: for each row a group of bars, as multiples of the no-op on a
/// logarithmic scale.
pub fn comparison(file: &str, subjects: &[Subject], rows: &[Row]) {
    draw_comparison(file, subjects, rows).unwrap_or_else(|e| crate::fail(&format!("{file}: {e}")));
}

/// The names of rows with values for all measured subjects, none of them zero, and what the
/// picture calls them.
fn drawn() -> [(String, &'static str); 5] {
    [
        (format!("file, {}", *HOST), "file"),
        ("resident".into(), "resident"),
        ("page tables".into(), "page tables"),
        ("minor faults".into(), "faults"),
        ("exec to exit of -v".into(), "exec to exit"),
    ]
}

fn draw_comparison(file: &str, subjects: &[Subject], rows: &[Row]) -> Result<(), Error> {
    let subjects: Vec<_> = subjects.iter().filter(|s| s.path().is_some()).collect();
    let root = SVGBackend::new(file, (900, 420)).into_drawing_area();
    let (drawn, columns) = (drawn(), subjects.len() as f64 + 1.5);
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(
            "What it costs, as a multiple of a program that only pauses",
            text(18),
        )
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..columns * drawn.len() as f64, (0.5..5000.0).log_scale())?;
    let label = |x: &f64| {
        drawn
            .get((x / columns) as usize)
            .map_or(String::new(), |row| row.1.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.3))
        .axis_style(GREY)
        .label_style(text(13))
        .x_labels(0)
        .y_label_formatter(&|y| format!("{y}x"))
        .draw()?;
    for (i, subject) in subjects.iter().enumerate() {
        let bars = drawn.iter().enumerate().filter_map(|(group, (name, _))| {
            let row = rows.iter().find(|row| row.name == *name)?;
            let ratio = row.values[i].map(Value::number)? / row.values[1].map(Value::number)?;
            let x = group as f64 * columns + i as f64 + 0.75;
            Some(Rectangle::new(
                [(x, 0.5), (x + 0.85, ratio)],
                COLOURS[i].filled(),
            ))
        });
        chart
            .draw_series(bars)?
            .label(&subject.name)
            .legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 10, y + 5)], COLOURS[i].filled())
            });
    }
    chart.draw_series((0..drawn.len()).map(|group| {
        let x = group as f64 * columns + columns / 2.0;
        let centre = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Top,
        );
        EmptyElement::at((x, 0.5)) + Text::new(label(&x), (0, 8), text(14).pos(centre))
    }))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(text(13))
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(root.present()?)
}

/// Draws the byte map of two files: one box for each byte, 32 in a line.
pub fn map(file: &str) {
    draw_map(file).unwrap_or_else(|e| crate::fail(&format!("{file}: {e}")));
}

fn draw_map(file: &str) -> Result<(), Error> {
    let root = SVGBackend::new(file, (900, 460)).into_drawing_area();
    for (i, map) in map::drawn().into_iter().enumerate() {
        let left = 20 + 290 * i as i32;
        root.draw(&Text::new(
            format!("{}: {} bytes", map.architecture, map.size()),
            (left, 16),
            text(16),
        ))?;
        for range in &map.ranges {
            draw_range(&root, range, left)?;
        }
    }
    for reason in 0..map::COUNT {
        let y = 40 + 20 * reason as i32;
        root.draw(&Rectangle::new(
            [(606, y), (620, y + 14)],
            colour(reason).filled(),
        ))?;
        root.draw(&Text::new(
            map::name(reason).replace('`', ""),
            (628, y),
            text(13),
        ))?;
    }
    Ok(root.present()?)
}

fn colour(reason: usize) -> RGBAColor {
    COLOURS[reason % COLOURS.len()].mix([1.0, 0.7, 0.45][reason / COLOURS.len()])
}

/// Draws line by line; a byte is eight pixels wide and twelve high.
fn draw_range(
    area: &DrawingArea<SVGBackend, Shift>,
    range: &map::Range,
    left: i32,
) -> Result<(), Error> {
    let (mut at, end) = (range.offset, range.offset + range.size);
    while at < end {
        let stop = end.min((at / 32 + 1) * 32);
        let (x, y) = (left + (at % 32) as i32 * 8, 40 + (at / 32) as i32 * 14);
        let corner = (x + (stop - at) as i32 * 8 - 1, y + 12);
        area.draw(&Rectangle::new(
            [(x, y), corner],
            colour(range.reason).filled(),
        ))?;
        at = stop;
    }
    Ok(())
}
