//! The chart, as SVG on white, with dark text.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::subjects::Subject;
use crate::{Row, Value};
use harness::programs::HOST;
use harness::thousands;

const INK: RGBColor = RGBColor(30, 30, 30);
/// All are light enough for dark text.
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
pub fn comparison(file: &Path, subjects: &[Subject], rows: &[Row]) {
    draw_comparison(file, subjects, rows).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
}

fn draw_comparison(
    file: &Path,
    subjects: &[Subject],
    rows: &[Row],
) -> Result<(), Box<dyn std::error::Error>> {
    const LOWEST: f64 = 0.1;
    // Rows without a zero.
    let drawn = [
        (format!("file, {}", *HOST), "file, bytes"),
        (format!("image to pull, {}", *HOST), "image to pull"),
        ("resident".into(), "resident, bytes"),
        ("page tables".into(), "page tables, kB"),
        ("minor faults".into(), "minor faults"),
        ("exec to exit of -v".into(), "exec to exit, µs"),
    ];
    // For each bar: its place, the number of its subject, the ratio to pause, and the value.
    let (mut x, mut titles, mut bars) = (1.0, Vec::new(), Vec::new());
    for (name, title) in drawn {
        let row = rows.iter().find(|row| row.name == name).ok_or("a row is missing")?;
        let ours = row.values[0].ok_or("pause has no value")?.number();
        let start = x;
        for (subject, value) in row.values.iter().enumerate() {
            if let Some(value) = value {
                let shown = match value {
                    Value::Time(_) => format!("{:.0}", value.number()),
                    _ => thousands(value.number() as u64),
                };
                bars.push((x, subject, value.number() / ours, shown));
                x += 1.0;
            }
        }
        titles.push((title, (start + x) / 2.0));
        x += 1.5;
    }
    let root = SVGBackend::new(file, (1100, 520)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption("What it costs, as a multiple of pause (logarithmic scale)", text(18))
        .x_label_area_size(30)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..x, (LOWEST..20000.0).log_scale())?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(INK.mix(0.2));
    mesh.axis_style(INK).label_style(text(13)).x_labels(0).y_label_formatter(&|y| format!("{y}×"));
    mesh.draw()?;
    // A subject is in the legend once, with its bars of all groups.
    for (number, subject) in subjects.iter().enumerate() {
        let fill = COLOURS[number % COLOURS.len()].filled();
        let ours = bars.iter().filter(|bar| bar.1 == number);
        let boxes =
            ours.map(|(x, _, ratio, _)| Rectangle::new([(*x, LOWEST), (x + 0.9, *ratio)], fill));
        let series = chart.draw_series(boxes)?.label(&subject.name);
        series.legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], fill));
    }
    // The values stand upright above the bars.
    let upright = text(11).transform(FontTransform::Rotate270);
    let upright = upright.pos(Pos::new(HPos::Left, VPos::Center));
    chart.draw_series(bars.into_iter().map(|(x, _, ratio, value)| {
        EmptyElement::at((x + 0.45, ratio)) + Text::new(value, (0, -4), upright.clone())
    }))?;
    let centred = text(13).pos(Pos::new(HPos::Center, VPos::Top));
    chart.draw_series(titles.into_iter().map(|(title, x)| {
        EmptyElement::at((x, LOWEST)) + Text::new(title, (0, 8), centred.clone())
    }))?;
    let mut legend = chart.configure_series_labels();
    legend.position(SeriesLabelPosition::UpperRight).label_font(text(13));
    legend.background_style(WHITE).border_style(INK.mix(0.3)).draw()?;
    Ok(root.present()?)
}
