// The graph on the screen: what is zoomed, focused and hovered, and where everything lies.

const ANIMATION_MS = 140;
const SLOW_MS = 12; // a layout that takes longer than this is not animated
const CONTEXT_ROWS = 2; // rows below the zoomed frame that stay in sight

const element = (id) => document.getElementById(id);

/**
 * Shows one of the profile's two trees.  `onChange(viewer)` is called after each change of what it shows.
 */
class Viewer {
  constructor(profile, onChange) {
    this.profile = profile;
    this.onChange = onChange;
    this.graph = element("graph");
    this.painter = new Painter(element("canvas"), profile);
    this.trees = { calls: new CallTree(profile), callers: null };
    this.view = "calls";
    this.flipped = false;
    this.zoomed = 0;
    this.focused = 0;
    this.found = null;
    this.usesKeyboard = false;
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.loadPalette();
  }

  get tree() {
    this.trees[this.view] ??= new CallerTree(this.profile);
    return this.trees[this.view];
  }

  /** Calls grow upwards as flames do; inverted, they hang. */
  get growsUp() {
    return (this.view === "calls") !== this.flipped;
  }

  get isZoomed() {
    return this.zoomed !== 0;
  }

  loadPalette() {
    this.palette = new Palette(this.profile.about, this.dark.matches);
    this.background = getComputedStyle(document.documentElement).getPropertyValue("--background").trim();
  }

  // What is shown -----------------------------------------------------------------------------------

  setView(view, byName, flipped) {
    if (view !== this.view) {
      this.zoomed = 0;
      this.focused = 0;
    }
    this.view = view;
    this.flipped = flipped;
    if (this.tree.byName !== byName) {
      this.tree.setOrder(byName);
    }
  }

  setFound(found) {
    this.found = found;
    this.repaint();
  }

  zoom(node, animate = true) {
    const [from, to] = [this.layout?.from, this.layout?.to];
    this.zoomed = node;
    this.focused = node;
    this.arrange();
    if (animate && from !== undefined && this.layoutMs < SLOW_MS && !matchMedia("(prefers-reduced-motion)").matches) {
      this.animate(from, to, this.layout);
    }
    this.onChange(this);
  }

  /** Lay everything out again: after a change of zoom, view, order or size. */
  arrange() {
    cancelAnimationFrame(this.frameRequest);
    this.hideHovered();
    const width = Math.max(1, this.graph.clientWidth);
    const height = Math.max(1, this.graph.clientHeight);
    this.painter.resize(width, height);
    const before = performance.now();
    const from = this.tree.start(this.zoomed);
    this.layout = new Layout(this.tree, from, from + this.tree.width[this.zoomed], width);
    this.layoutMs = performance.now() - before;
    this.zoomedDepth = this.tree.ancestry(this.zoomed).length - 1;
    this.height = Math.max(height, this.layout.rows.length * ROW_HEIGHT);
    element("sizer").style.height = `${this.height}px`;
    this.scrollToDepth(this.zoomedDepth - CONTEXT_ROWS, true);
    this.paint(this.layout);
    this.showFocused();
  }

  animate(from, to, target) {
    const start = performance.now();
    const step = (now) => {
      const done = Math.min(1, Math.max(0, (now - start) / ANIMATION_MS));
      const eased = 1 - (1 - done) ** 3;
      const between = (a, b) => a + (b - a) * eased;
      const [left, right] = [between(from, target.from), between(to, target.to)];
      this.paint(done < 1 ? new Layout(this.tree, left, right, target.pixels) : target);
      if (done < 1) {
        this.frameRequest = requestAnimationFrame(step);
      }
    };
    this.frameRequest = requestAnimationFrame(step);
  }

  repaint() {
    if (this.layout !== undefined) {
      cancelAnimationFrame(this.frameRequest);
      this.paint(this.layout);
    }
  }

  paint(layout) {
    const scrolled = this.graph.scrollTop;
    this.painter.paint(
      layout, this.palette, this.found, (depth) => this.topOf(depth) - scrolled, this.zoomedDepth, this.background,
    );
  }

  // Places ------------------------------------------------------------------------------------------

  /** Upper edge of a row, from the upper edge of the whole graph. */
  topOf(depth) {
    return this.growsUp ? this.height - (depth + 1) * ROW_HEIGHT : depth * ROW_HEIGHT;
  }

  /** Scroll so that a row is in sight; `first`: so that it is the first one. */
  scrollToDepth(depth, first = false) {
    const top = this.topOf(Math.max(0, depth));
    const { scrollTop, clientHeight } = this.graph;
    const bottom = top + ROW_HEIGHT - clientHeight;
    if (first) {
      this.graph.scrollTop = this.growsUp ? bottom : top;
    } else if (top < scrollTop || bottom > scrollTop) {
      this.graph.scrollTop = top < scrollTop ? top : bottom;
    }
  }

  /**
   * The depth, index in the row and node at a place on the screen; null when there is none.  Where frames are
   * too narrow to draw (`isRest`) it is the frame that they belong to.
   */
  at(clientX, clientY) {
    const { layout } = this;
    const box = this.graph.getBoundingClientRect();
    const x = clientX - box.left;
    const y = clientY - box.top + this.graph.scrollTop;
    let depth = Math.floor((this.growsUp ? this.height - y : y) / ROW_HEIGHT);
    let index = layout.indexAt(depth, x);
    const isRest = index < 0 && layout.isRest(depth, x);
    if (isRest) {
      depth -= 1;
      index = layout.indexAt(depth, x);
    }
    return index < 0 ? null : { depth, index, node: layout.rows[depth].node[index], isRest };
  }

  putOutline(outline, depth, index) {
    const { left, right } = this.layout.rows[depth];
    outline.style.left = `${Math.round(left[index])}px`;
    outline.style.top = `${this.topOf(depth)}px`;
    outline.style.width = `${Math.max(3, Math.round(right[index]) - Math.round(left[index]) - 1)}px`;
    outline.style.height = `${ROW_HEIGHT - 1}px`;
    outline.hidden = false;
  }

  // Focus -------------------------------------------------------------------------------------------

  /** Where the focused node is drawn: depth and index; null when it is out of sight. */
  focusedPlace() {
    const depth = this.tree.ancestry(this.focused).length - 1;
    const index = this.layout.rows[depth]?.node.indexOf(this.focused) ?? -1;
    return index < 0 ? null : { depth, index };
  }

  focus(depth, index) {
    this.focused = this.layout.rows[depth].node[index];
    this.scrollToDepth(depth);
    this.showFocused();
  }

  showFocused() {
    const place = this.focusedPlace() ?? { depth: 0, index: 0 };
    const row = this.layout.rows[place.depth];
    this.focused = row.node[place.index];
    const description = describe(this.tree, this.focused);
    const item = element("focused");
    this.putOutline(item, place.depth, place.index);
    item.setAttribute("aria-label", describeInLine(description));
    item.setAttribute("aria-level", place.depth + 1);
    const siblings = row.node.filter((node) => this.tree.parent[node] === this.tree.parent[this.focused]);
    item.setAttribute("aria-setsize", siblings.length);
    item.setAttribute("aria-posinset", siblings.indexOf(this.focused) + 1);
    const rows = description.rows.map(([label, value]) => `${label} ${value}`);
    const name = document.createElement("b");
    name.textContent = description.name;
    const rest = [description.place, description.kind, ...rows].filter(Boolean);
    element("status").replaceChildren(name, ` · ${rest.join(" · ")}`);
  }

  moveAlong(step) {
    const place = this.focusedPlace();
    if (place && this.layout.rows[place.depth].node[place.index + step] !== undefined) {
      this.focus(place.depth, place.index + step);
    }
  }

  moveToParent() {
    const place = this.focusedPlace();
    if (place && place.depth > 0) {
      const parent = this.tree.parent[this.focused];
      this.focus(place.depth - 1, this.layout.rows[place.depth - 1].node.indexOf(parent));
    }
  }

  /** To the widest frame that the focused one called. */
  moveToChild() {
    const place = this.focusedPlace();
    const row = place && this.layout.rows[place.depth + 1];
    let widest = -1;
    row?.node.forEach((node, index) => {
      const isChild = this.tree.parent[node] === this.focused;
      if (isChild && (widest < 0 || this.tree.width[node] > this.tree.width[row.node[widest]])) {
        widest = index;
      }
    });
    if (widest >= 0) {
      this.focus(place.depth + 1, widest);
    }
  }

  moveVertically(isUp) {
    if (isUp === this.growsUp) {
      this.moveToChild();
    } else {
      this.moveToParent();
    }
  }

  /** To the next (1) or previous (-1) frame that the search found, row by row from the root. */
  moveToFound(step) {
    if (this.found === null) {
      return;
    }
    const places = this.layout.rows.flatMap((row, depth) => row.node.map((node, index) => ({ depth, index, node })));
    const here = places.findIndex(({ node }) => node === this.focused);
    for (let i = 1; i <= places.length; i++) {
      const place = places[(here + step * i + places.length * 2) % places.length];
      if (this.found[this.tree.frame[place.node]]) {
        this.focus(place.depth, place.index);
        return;
      }
    }
  }

  // Pointer -----------------------------------------------------------------------------------------

  hover(event) {
    const place = this.at(event.clientX, event.clientY);
    if (place === null) {
      this.hideHovered();
      return;
    }
    this.putOutline(element("hovered"), place.depth, place.index);
    const description = describe(this.tree, place.node);
    const rest = { name: "Frames too narrow to draw", place: `click to zoom into ${description.name}`, kind: "", rows: [] };
    showTooltip(place.isRest ? rest : description, event.clientX, event.clientY);
  }

  hideHovered() {
    element("hovered").hidden = true;
    element("tooltip").hidden = true;
  }
}

/** Put the description beside the pointer, inside the window. */
function showTooltip(description, x, y) {
  const tooltip = element("tooltip");
  const make = (tag, className, text) => {
    const part = document.createElement(tag);
    part.className = className;
    part.textContent = text;
    return part;
  };
  const list = document.createElement("dl");
  for (const [label, value] of description.rows) {
    list.append(make("dt", "", label), make("dd", "", value));
  }
  const place = [description.place, description.kind].filter(Boolean).join(" · ");
  tooltip.replaceChildren(make("div", "name", description.name), make("div", "place", place), list);
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const left = Math.max(8, Math.min(x + 14, innerWidth - width - 8));
  const below = y + 18;
  const top = below + height + 8 <= innerHeight ? below : Math.max(8, y - height - 12);
  tooltip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}
