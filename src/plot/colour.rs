//! Colours as 0xRRGGBB, for series and for values.

pub(super) type Colour = u32;

pub(super) const INK: Colour = 0x222222;
pub(super) const FAINT: Colour = 0x6b6b6b;
pub(super) const GRID: Colour = 0xe2e2e2;
pub(super) const PAPER: Colour = 0xffffff;

/// Okabe & Ito, "Color Universal Design", 2008, without yellow, which is hard to see on white. Four
/// colours of Tol's "muted" scheme that differ from these follow.
const SERIES: [Colour; 11] =
    [0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x000000, 0x882255, 0x999933, 0x332288, 0x44aa99];

/// The colour of a series. After the last colour they repeat, paler and darker in turn.
pub(super) fn series(i: usize) -> Colour {
    let (colour, round) = (SERIES[i % SERIES.len()], i / SERIES.len());
    match round {
        0 => colour,
        round if round % 2 == 1 => mix(colour, PAPER, 0.4),
        _ => mix(colour, INK, 0.4),
    }
}

/// The scale is cold below the threshold, warm above it, and ever darker, so that it can be read in
/// greyscale.
const COLD: [Colour; 3] = [0xf7fafd, 0xc3d7ea, 0x86a9d0];
const WARM: [Colour; 4] = [0xf0a04b, 0xd0552b, 0x8f1d1d, 0x3a0510];

/// The colour at a position on the scale: 0 to 1 below the threshold, and 1 to 2 above it.
pub(super) fn value(place: f64) -> Colour {
    let (ramp, part) = if place < 1.0 { (&COLD[..], place) } else { (&WARM[..], place - 1.0) };
    let at = part.clamp(0.0, 1.0) * (ramp.len() - 1) as f64;
    let below = (at.floor() as usize).min(ramp.len() - 2);
    mix(ramp[below], ramp[below + 1], at - below as f64)
}

fn mix(a: Colour, b: Colour, part: f64) -> Colour {
    [16, 8, 0].into_iter().fold(0, |mixed, shift| {
        let channel = |colour: Colour| f64::from(colour >> shift & 0xff);
        mixed | ((channel(a) + (channel(b) - channel(a)) * part).round() as Colour) << shift
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_of_many_series_have_one_colour() {
        let colours: std::collections::BTreeSet<Colour> = (0..22).map(series).collect();
        assert_eq!(colours.len(), 22);
    }

    #[test]
    fn larger_values_are_darker() {
        let lightness =
            |c: Colour| 0.3 * f64::from(c >> 16) + 0.59 * f64::from(c >> 8 & 0xff) + 0.11 * f64::from(c & 0xff);
        let steps: Vec<f64> = (0..=40).map(|i| lightness(value(f64::from(i) / 20.0))).collect();
        let jump = steps.windows(2).filter(|pair| pair[1] > pair[0] + 12.0).count();
        assert_eq!(jump, 0, "{steps:?}");
        assert_eq!((value(0.0), value(2.0), value(9.0)), (0xf7fafd, 0x3a0510, 0x3a0510));
    }
}
