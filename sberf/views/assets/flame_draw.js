// From a tree to rectangles, and from rectangles to pixels.

const ROW_HEIGHT = 20; // CSS pixels, with the gap
const MIN_WIDTH = 0.3; // narrower frames are left out, and so is what they call
const MIN_LABEL_WIDTH = 24;
const LABEL_PADDING = 5;
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu, Cantarell, "Noto Sans", sans-serif';

/**
 * The frames of a tree that are wide enough to be seen between `from` and `to`, row by row from the root.
 * Where frames are too narrow, the row's `rest` says how far they reach: pairs of left and right edges.
 */
class Layout {
  constructor(tree, from, to, pixels) {
    this.rows = [];
    this.tree = tree;
    this.from = from;
    this.to = to;
    this.pixels = pixels;
    this.scale = to > from ? pixels / (to - from) : 0;
    this.place(0, 0, 0);
  }

  place(node, depth, start) {
    const { tree, from, to, scale, pixels } = this;
    const row = this.row(depth);
    row.left.push(Math.max(0, (start - from) * scale));
    row.right.push(Math.min(pixels, (start + tree.width[node] - from) * scale));
    row.node.push(node);
    let left = start;
    for (const child of tree.children(node)) {
      const right = left + tree.width[child];
      // The tolerance keeps rounding from drawing a sliver of a neighbour.
      if ((right - from) * scale > 1e-6 && (to - left) * scale > 1e-6) {
        if ((right - left) * scale >= MIN_WIDTH) {
          this.place(child, depth + 1, left);
        } else {
          this.addRest(depth + 1, (left - from) * scale, (right - from) * scale);
        }
      }
      left = right;
    }
  }

  row(depth) {
    return (this.rows[depth] ??= { left: [], right: [], node: [], rest: [] });
  }

  addRest(depth, left, right) {
    const { rest } = this.row(depth);
    if (rest.length > 0 && left - rest[rest.length - 1] < 1e-3) {
      rest[rest.length - 1] = right;
    } else {
      rest.push(left, right);
    }
  }

  /** Whether at `x` there are only frames too narrow to draw. */
  isRest(depth, x) {
    const rest = this.rows[depth]?.rest ?? [];
    return rest.some((left, i) => i % 2 === 0 && x >= left && x < rest[i + 1]);
  }

  /** Index in the row of the frame at `x`, -1 when there is none. */
  indexAt(depth, x) {
    const row = this.rows[depth];
    if (row === undefined) {
      return -1;
    }
    let low = 0;
    let high = row.left.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (row.left[middle] <= x) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return x >= row.left[low] && x < Math.max(row.right[low], row.left[low] + 1) ? low : -1;
  }
}

/** Colours of the current theme: a fill for each kind and shade, for changes, and for what a search found. */
class Palette {
  constructor(about, isDark) {
    this.isDark = isDark;
    this.text = isDark ? "#f2f3f5" : "#16181d";
    this.dimmedText = isDark ? "#9aa0ab" : "#5d6470";
    this.found = isDark ? "#c026a8" : "#b5179e";
    this.foundText = "#ffffff";
    this.dimmed = isDark ? "#262930" : "#e6e8ec";
    this.rest = isDark ? "#22252b" : "#eeeff2";
    this.fills = about.kinds.map((kind) => shades(about.palette[kind][isDark ? "dark" : "light"]));
  }

  /** Grey where nothing changed, towards red where a frame grew and towards blue where it shrank. */
  change(change) {
    const strength = Math.abs(change) ** 0.6; // small changes are to be seen as well
    const hue = change > 0 ? 8 : 214;
    return this.isDark
      ? `hsl(${hue} ${(72 * strength).toFixed(1)}% ${(25 + 14 * strength).toFixed(1)}%)`
      : `hsl(${hue} ${(92 * strength).toFixed(1)}% ${(88 - 16 * strength).toFixed(1)}%)`;
  }
}

/** The 32 shades of a kind: 8 hues (by module) in 4 lightnesses (by name). */
function shades([firstHue, lastHue, saturation, lightness]) {
  return Array.from({ length: 32 }, (_, shade) => {
    const hue = firstHue + ((lastHue - firstHue) * (shade >> 2)) / 7;
    return `hsl(${hue.toFixed(1)} ${saturation}% ${lightness + 1.5 * (shade & 3)}%)`;
  });
}

/** Names cut to the room there is; measuring text is slow, so advances are remembered. */
class Labels {
  constructor(context, names) {
    this.context = context;
    this.names = names;
    this.widths = new Map();
    this.advances = new Map();
  }

  /** The longest form of a frame's name that fits, cut if none does; "" when little would be left. */
  fit(frame, room) {
    let form = this.names[frame];
    for (const shorten of [(name) => name, shortName, lastPart]) {
      form = shorten(form);
      if (this.width(form) <= room) {
        return form;
      }
    }
    return this.cut(form, room);
  }

  width(text) {
    let width = this.widths.get(text);
    if (width === undefined) {
      width = text.length > 400 ? Infinity : this.context.measureText(text).width;
      this.widths.set(text, width);
    }
    return width;
  }

  cut(text, room) {
    let left = room - this.advance("…");
    let kept = "";
    for (const character of text) {
      left -= this.advance(character);
      if (left < 0) {
        break;
      }
      kept += character;
    }
    return kept.length < 3 ? "" : `${kept.trimEnd()}…`;
  }

  advance(character) {
    let advance = this.advances.get(character);
    if (advance === undefined) {
      advance = this.context.measureText(character).width;
      this.advances.set(character, advance);
    }
    return advance;
  }
}

/** Draws a layout's rows on a canvas that shows a part of it. */
class Painter {
  constructor(canvas, profile) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.profile = profile;
    this.labels = new Labels(this.context, profile.names);
  }

  resize(width, height) {
    this.ratio = window.devicePixelRatio || 1;
    this.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * this.ratio);
    this.canvas.height = Math.round(height * this.ratio);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
  }

  /**
   * @param layout what to draw
   * @param palette the colours
   * @param found which frames a search found, or null
   * @param topOf gives a row's upper edge on the canvas
   * @param zoomed depth of the frame that was zoomed into: what is above it is drawn faded
   */
  paint(layout, palette, found, topOf, zoomed, background) {
    const { context } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = background;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    context.font = FONT;
    context.textBaseline = "middle";
    for (let depth = 0; depth < layout.rows.length; depth++) {
      const top = topOf(depth);
      if (top > -ROW_HEIGHT && top < this.height) {
        this.paintRow(layout, depth, top, palette, found, depth < zoomed);
      }
    }
  }

  paintRow(layout, depth, top, palette, found, faded) {
    const { context, ratio } = this;
    const row = layout.rows[depth];
    const y = Math.round(top * ratio);
    const height = Math.round((top + ROW_HEIGHT) * ratio) - y - Math.max(1, Math.round(ratio));
    const captions = [];
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = palette.rest;
    for (let i = 0; i < row.rest.length; i += 2) {
      const left = Math.round(row.rest[i] * ratio);
      context.fillRect(left, y, Math.round(row.rest[i + 1] * ratio) - left, height);
    }
    context.globalAlpha = faded ? 0.55 : 1;
    for (let i = 0; i < row.node.length; i++) {
      const left = Math.round(row.left[i] * ratio);
      const right = Math.round(row.right[i] * ratio);
      if (right <= left) {
        continue; // within a pixel that its neighbour fills
      }
      const isFound = found !== null && found[layout.tree.frame[row.node[i]]] === 1;
      context.fillStyle = this.fill(layout.tree, row.node[i], palette, found, isFound);
      const gap = right - left > 3 * ratio ? Math.round(ratio) : 0;
      context.fillRect(left, y, right - left - gap, height);
      if (row.right[i] - row.left[i] >= MIN_LABEL_WIDTH) {
        captions.push([i, isFound]);
      }
    }
    context.globalAlpha = 1;
    this.paintCaptions(layout, row, top, captions, palette, faded || found !== null);
  }

  paintCaptions(layout, row, top, captions, palette, dimmed) {
    const { context, ratio } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const middle = top + (ROW_HEIGHT - 1) / 2 + 0.5;
    for (const [i, isFound] of captions) {
      const room = row.right[i] - row.left[i] - 2 * LABEL_PADDING;
      const label = this.labels.fit(layout.tree.frame[row.node[i]], room);
      if (label !== "") {
        context.fillStyle = isFound ? palette.foundText : dimmed ? palette.dimmedText : palette.text;
        context.fillText(label, Math.round(row.left[i]) + LABEL_PADDING, middle);
      }
    }
  }

  fill(tree, node, palette, found, isFound) {
    if (found !== null) {
      return isFound ? palette.found : palette.dimmed;
    }
    if (this.profile.isDiff) {
      return palette.change(changeOf(tree, node));
    }
    const { kind, shade } = this.profile.about.frames;
    return palette.fills[kind[tree.frame[node]]][shade[tree.frame[node]]];
  }
}
