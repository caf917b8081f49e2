//! Where nodes stand: layers from left to right, few crossings, short ways.
//!
//! The steps are those of Sugiyama, Tagawa and Toda, "Methods for visual understanding of
//! hierarchical system structures" (1981): layers by the longest way, places for long arrows in the
//! layers that they pass, an order by barycentres, then coordinates.

use std::collections::BTreeSet;

/// How often the order of all layers is improved.
const SWEEPS: usize = 12;

/// A node, or a place where a long arrow passes a layer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) layer: usize,
    /// The middle, from the top.
    pub(super) y: f64,
}

#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Nodes in their order, then places of long arrows.
    pub(super) places: Vec<Place>,
    /// For each arrow, the places that it connects.
    pub(super) ways: Vec<Vec<usize>>,
    pub(super) layers: usize,
}

/// Places nodes of these heights; `gap` is the least room between two.
pub(super) fn layout(heights: &[f64], arrows: &BTreeSet<(usize, usize)>, gap: f64) -> Layout {
    let layer_of = layers(heights.len(), arrows);
    let mut layout =
        Layout { layers: layer_of.iter().max().map_or(0, |last| last + 1), ..Layout::default() };
    layout.places = layer_of.iter().map(|layer| Place { layer: *layer, y: 0.0 }).collect();
    for (from, to) in arrows {
        let mut way = vec![*from];
        for layer in layer_of[*from] + 1..layer_of[*to] {
            way.push(layout.places.len());
            layout.places.push(Place { layer, y: 0.0 });
        }
        way.push(*to);
        layout.ways.push(way);
    }
    let height = |place: usize| heights.get(place).copied().unwrap_or(0.0);
    let mut order = vec![Vec::new(); layout.layers];
    for (at, place) in layout.places.iter().enumerate() {
        order[place.layer].push(at);
    }
    let neighbours = neighbours(&layout);
    for sweep in 0..SWEEPS {
        // Forwards by what comes before, backwards by what comes after.
        let forwards = sweep % 2 == 0;
        stack(&mut layout.places, &order, &height, gap);
        for step in 0..layout.layers {
            let layer = if forwards { step } else { layout.layers - 1 - step };
            let towards = |at: usize| {
                let (before, after) = &neighbours[at];
                mean(if forwards { before } else { after }, &layout.places)
            };
            let wanted: Vec<(f64, usize)> = order[layer]
                .iter()
                .map(|at| (towards(*at).unwrap_or(layout.places[*at].y), *at))
                .collect();
            settle(&mut layout.places, &mut order[layer], wanted, &height, gap);
        }
    }
    to_the_top(&mut layout.places, &height);
    layout
}

/// The layer of each node: one more than the last one before it. What is in a circle (tasks that
/// are drawn as one can be) is broken open at the first node.
fn layers(nodes: usize, arrows: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut layer = vec![0; nodes];
    let mut waits = vec![0_usize; nodes];
    let mut after = vec![Vec::new(); nodes];
    for (from, to) in arrows {
        waits[*to] += 1;
        after[*from].push(*to);
    }
    let mut open: BTreeSet<usize> = (0..nodes).collect();
    let mut ready: Vec<usize> = (0..nodes).rev().filter(|node| waits[*node] == 0).collect();
    while let Some(node) = ready.pop().or_else(|| open.first().copied()) {
        if !open.remove(&node) {
            continue;
        }
        for next in after[node].iter().filter(|next| open.contains(*next)) {
            layer[*next] = layer[*next].max(layer[node] + 1);
            waits[*next] = waits[*next].saturating_sub(1);
            if waits[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    layer
}

/// For each place, those that come before it and after it on some way.
fn neighbours(layout: &Layout) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut neighbours = vec![(Vec::new(), Vec::new()); layout.places.len()];
    for way in &layout.ways {
        for (from, to) in way.iter().zip(way.iter().skip(1)) {
            neighbours[*from].1.push(*to);
            neighbours[*to].0.push(*from);
        }
    }
    neighbours
}

#[expect(clippy::cast_precision_loss, reason = "there are far less than 2^52 neighbours")]
fn mean(places: &[usize], all: &[Place]) -> Option<f64> {
    let sum: f64 = places.iter().map(|at| all[*at].y).sum();
    (!places.is_empty()).then(|| sum / places.len() as f64)
}

/// First coordinates: one below the other, where they have none.
fn stack(places: &mut [Place], order: &[Vec<usize>], height: &impl Fn(usize) -> f64, gap: f64) {
    for layer in order {
        let mut top = f64::NEG_INFINITY;
        for at in layer {
            let half = height(*at) / 2.0;
            let least = if top.is_finite() { top + gap + half } else { places[*at].y };
            places[*at].y = places[*at].y.max(least);
            top = places[*at].y + half;
        }
    }
}

/// Puts a layer in the order of what its places want, each as near to that as the others allow.
fn settle(
    places: &mut [Place],
    order: &mut Vec<usize>,
    mut wanted: Vec<(f64, usize)>,
    height: &impl Fn(usize) -> f64,
    gap: f64,
) {
    wanted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    *order = wanted.iter().map(|(_, at)| *at).collect();
    // Pushed down from the top, then all moved up by half of what they were pushed.
    let mut top = f64::NEG_INFINITY;
    let mut pushed = 0.0;
    for (y, at) in &wanted {
        let half = height(*at) / 2.0;
        let placed = y.max(top + gap + half);
        pushed += placed - y;
        places[*at].y = placed;
        top = placed + half;
    }
    #[expect(clippy::cast_precision_loss, reason = "there are far less than 2^52 places")]
    let back = pushed / wanted.len().max(1) as f64;
    for (_, at) in &wanted {
        places[*at].y -= back;
    }
}

fn to_the_top(places: &mut [Place], height: &impl Fn(usize) -> f64) {
    let tops = places.iter().enumerate().map(|(at, place)| place.y - height(at) / 2.0);
    let top = tops.fold(f64::INFINITY, f64::min);
    if top.is_finite() {
        for place in places {
            place.y -= top;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_layer_keep_apart_and_arrows_go_to_the_right() {
        let arrows = BTreeSet::from([(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4), (0, 4)]);
        let layout = layout(&[20.0; 5], &arrows, 10.0);
        assert_eq!(layout.layers, 3);
        for way in &layout.ways {
            let layers: Vec<usize> = way.iter().map(|at| layout.places[*at].layer).collect();
            assert!(layers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{layers:?}");
        }
        let mut middle = [1, 2, 3].map(|at: usize| layout.places[at].y);
        middle.sort_by(f64::total_cmp);
        assert!(middle[1] - middle[0] >= 29.9 && middle[2] - middle[1] >= 29.9, "{middle:?}");
    }

    #[test]
    fn a_circle_is_drawn_all_the_same() {
        let layout = layout(&[1.0; 3], &BTreeSet::from([(0, 1), (1, 2), (2, 0)]), 1.0);
        assert_eq!(layout.ways.len(), 3);
    }
}
