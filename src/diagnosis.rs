//! How mistakes in files are drawn: the line, what is underlined in it, what to write instead.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// A mistake with its place underlined.
pub(crate) fn draw(diagnostic: &dyn Diagnostic, theme: GraphicalTheme) -> String {
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100);
    let mut text = String::new();
    if handler.render_report(&mut text, diagnostic).is_err() {
        text = diagnostic.to_string();
    }
    text
}
