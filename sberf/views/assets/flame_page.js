// The page around the graph: header, search, buttons, keys, and the address that keeps them.

const MEANING_CALLS =
  "Each bar is a function; its width is the share of all samples in which it was on the stack. What stands on a " +
  "bar was called by it. The order from left to right means nothing: the heaviest comes first. Inverted, the bars " +
  "at the root are the functions that ran themselves, and what hangs below is who called them. Where it is pale, frames " +
  "are too narrow to draw: zoom in.";
const MEANING_DIFFERENCE =
  "Each bar is a function; its width is the mean of its shares before and after, so that also what vanished has " +
  "its place. Red has a larger share after than before, blue a smaller one, and the stronger the colour, the larger " +
  "the factor. Grey is the same, or differs no more than the number of samples lets it by chance (5 % level).";

const MOVES = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "n", "N"]);

class Page {
  constructor(profile) {
    this.profile = profile;
    this.term = "";
    this.viewer = new Viewer(profile, () => this.showState());
    this.showHeader();
    this.showLegend();
    this.listen();
  }

  get tree() {
    return this.viewer.tree;
  }

  // State and address -------------------------------------------------------------------------------

  /** Take over what the address says: view, order, zoom and search. */
  restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    const view = state.get("view") ?? (this.profile.about.inverted ? "callers" : "calls");
    this.viewer.setView(view === "callers" ? "callers" : "calls", state.get("order") === "name", state.has("flip"));
    element("term").value = state.get("search") ?? "";
    this.search();
    this.viewer.zoom(this.tree.find(state.get("zoom") ?? "") ?? 0, false);
  }

  address() {
    const state = new URLSearchParams();
    if ((this.viewer.view === "callers") !== this.profile.about.inverted) {
      state.set("view", this.viewer.view);
    }
    if (this.tree.byName) {
      state.set("order", "name");
    }
    if (this.viewer.flipped) {
      state.set("flip", "1");
    }
    if (this.viewer.isZoomed) {
      state.set("zoom", this.tree.address(this.viewer.zoomed));
    }
    if (this.term) {
      state.set("search", this.term);
    }
    return `#${state}`;
  }

  /** Zooming can be undone with the browser's back button; other changes replace the address. */
  remember(isStep) {
    const address = this.address();
    if (address === (location.hash || "#")) {
      return;
    }
    try {
      history[isStep ? "pushState" : "replaceState"](null, "", address);
    } catch {
      // A page inside a sandboxed frame may not have an address of its own.
    }
  }

  /** Bring everything beside the graph in line with what it shows. */
  showState() {
    const { viewer } = this;
    element("reset").disabled = !viewer.isZoomed;
    element("invert").setAttribute("aria-pressed", viewer.view === "callers");
    element("order").setAttribute("aria-pressed", this.tree.byName);
    element("flip").setAttribute("aria-pressed", viewer.flipped);
    this.showCrumbs();
    this.showMatched();
  }

  zoom(node) {
    this.viewer.zoom(node);
    this.remember(true);
  }

  change(view, byName, flipped) {
    this.viewer.setView(view, byName, flipped);
    this.viewer.zoom(this.viewer.zoomed, false);
    this.remember(false);
  }

  invert() {
    this.change(this.viewer.view === "calls" ? "callers" : "calls", this.tree.byName, this.viewer.flipped);
  }

  reorder() {
    this.change(this.viewer.view, !this.tree.byName, this.viewer.flipped);
  }

  flip() {
    this.change(this.viewer.view, this.tree.byName, !this.viewer.flipped);
  }

  // Search ------------------------------------------------------------------------------------------

  search() {
    const input = element("term");
    this.term = input.value;
    performance.mark("search-start");
    let found = this.viewer.found;
    let problem = "";
    try {
      found = matchingFrames(this.profile, this.term);
    } catch {
      problem = "not a regular expression";
    }
    input.setAttribute("aria-invalid", problem !== "");
    this.problem = problem;
    this.viewer.setFound(found);
    this.showMatched();
    performance.measure("search", "search-start");
  }

  showMatched() {
    const { found, zoomed, view } = this.viewer;
    if (this.problem || found === null) {
      element("matched").textContent = this.problem;
      return;
    }
    const all = this.profile.measures.filter((_, i) => i % 2 === 0).map((measure) => measure.total);
    const shareBelow = (top) => matchedWeights(this.profile, found, top).map((sum, i) => share(sum, all[i][top]));
    const say = (shares) => shares.map(formatPercent).join(" → ");
    const zoomText = view === "calls" && zoomed !== 0 ? `, ${say(shareBelow(zoomed))} of the zoomed` : "";
    element("matched").textContent = `${say(shareBelow(0))} matched${zoomText}`;
  }

  // Header ------------------------------------------------------------------------------------------

  showHeader() {
    const { about } = this.profile;
    const list = (texts) => texts.map((text) => {
      const item = document.createElement("li");
      item.textContent = text;
      return item;
    });
    const facts = list(about.facts.map(([label, value]) => (label ? `${label}: ${value}` : value)));
    facts.forEach((item, i) => item.classList.toggle("line", about.facts[i][0] !== ""));
    element("facts").replaceChildren(...facts);
    const { warnings } = about;
    const box = element("warnings");
    box.hidden = warnings.length === 0;
    box.classList.toggle("single", warnings.length === 1);
    box.querySelector("summary").textContent =
      warnings.length === 1 ? warnings[0] : `${warnings.length} things to know about what was recorded`;
    box.querySelector("ul").replaceChildren(...list(warnings.length > 1 ? warnings : []));
    element("meaning").textContent = this.profile.isDiff ? MEANING_DIFFERENCE : MEANING_CALLS;
  }

  showLegend() {
    const { about, isDiff } = this.profile;
    const { palette } = this.viewer;
    const entry = (label, background, isWide) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = isWide ? "swatch wide" : "swatch";
      swatch.style.background = background;
      item.append(swatch, label);
      return item;
    };
    if (isDiff) {
      const stops = [-1, -0.5, 0, 0.5, 1].map((change) => palette.change(change)).join(", ");
      const scale = entry("grew, new", `linear-gradient(to right, ${stops})`, true);
      scale.prepend("gone, shrank");
      element("legend").replaceChildren(scale);
      return;
    }
    const used = new Set(about.frames.kind);
    const kinds = about.kinds.map((kind, index) => [about.palette[kind].label, index]).filter(([, i]) => used.has(i));
    element("legend").replaceChildren(...kinds.map(([label, i]) => entry(label, palette.fills[i][12], false)));
  }

  showCrumbs() {
    const { viewer, tree } = this;
    const crumbs = element("crumbs");
    crumbs.hidden = !viewer.isZoomed;
    crumbs.replaceChildren();
    for (const node of viewer.isZoomed ? tree.ancestry(viewer.zoomed) : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = button.title = this.profile.names[tree.frame[node]];
      button.addEventListener("click", () => this.zoom(node));
      if (node === viewer.zoomed) {
        button.setAttribute("aria-current", "location");
      }
      crumbs.append(...(node === 0 ? [] : [Object.assign(document.createElement("span"), { textContent: "›" })]), button);
    }
    crumbs.scrollLeft = crumbs.scrollWidth;
  }

  // Events ------------------------------------------------------------------------------------------

  listen() {
    const { viewer } = this;
    const graph = element("graph");
    graph.addEventListener("pointermove", (event) => viewer.hover(event));
    graph.addEventListener("pointerleave", () => viewer.hideHovered());
    graph.addEventListener("scroll", () => {
      viewer.hideHovered();
      viewer.repaint();
    });
    graph.addEventListener("click", (event) => {
      const place = viewer.at(event.clientX, event.clientY);
      if (place !== null) {
        this.zoom(place.node);
      }
    });
    element("term").addEventListener("input", () => {
      this.search();
      this.remember(false);
    });
    const actions = {
      reset: () => this.zoom(0),
      invert: () => this.invert(),
      order: () => this.reorder(),
      flip: () => this.flip(),
      ask: () => element("help").showModal(),
    };
    for (const [id, action] of Object.entries(actions)) {
      element(id).addEventListener("click", action);
    }
    document.addEventListener("keydown", (event) => this.key(event));
    addEventListener("popstate", () => this.restore());
    new ResizeObserver(() => viewer.arrange()).observe(graph);
    viewer.dark.addEventListener("change", () => {
      viewer.loadPalette();
      this.showLegend();
      viewer.repaint();
    });
  }

  key(event) {
    if (element("help").open) {
      return; // the dialog closes itself
    }
    if ((event.ctrlKey || event.metaKey) && event.key === "f" && document.activeElement !== element("term")) {
      element("term").select(); // the browser cannot find text on a canvas; a second Ctrl+F is the browser's
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const action = event.target === element("term") ? this.searchKey(event) : this.graphKey(event);
    if (action) {
      event.preventDefault();
      action();
      if (MOVES.has(event.key) && event.target !== element("term")) {
        element("graph").focus({ preventScroll: true }); // so that the focused frame is outlined and read out
      }
    }
  }

  searchKey(event) {
    const leave = () => element("graph").focus();
    const clear = () => {
      element("term").value = "";
      this.search();
      this.remember(false);
    };
    return {
      Enter: () => (leave(), this.viewer.moveToFound(1)),
      Escape: () => (element("term").value === "" ? leave() : clear()),
    }[event.key];
  }

  graphKey(event) {
    const { viewer } = this;
    const isOnControl = event.target.closest?.("button, summary") !== null && event.target !== document.body;
    if (isOnControl && ["Enter", " "].includes(event.key)) {
      return undefined; // the control's own
    }
    return {
      ArrowLeft: () => viewer.moveAlong(-1),
      ArrowRight: () => viewer.moveAlong(1),
      ArrowUp: () => viewer.moveVertically(true),
      ArrowDown: () => viewer.moveVertically(false),
      Home: () => viewer.focus(0, 0),
      Enter: () => this.zoom(viewer.focused),
      " ": () => this.zoom(viewer.focused),
      Backspace: () => this.zoom(this.tree.parent[viewer.zoomed]),
      Escape: () => this.escape(),
      "/": () => element("term").select(),
      n: () => viewer.moveToFound(1),
      N: () => viewer.moveToFound(-1),
      i: () => this.invert(),
      o: () => this.reorder(),
      f: () => this.flip(),
      "?": () => element("help").showModal(),
    }[event.key];
  }

  escape() {
    if (!element("tooltip").hidden) {
      this.viewer.hideHovered();
    } else if (this.viewer.isZoomed) {
      this.zoom(0);
    } else if (this.term !== "") {
      element("term").value = "";
      this.search();
      this.remember(false);
    }
  }
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    element("message").textContent =
      "This browser is too old for this page: it needs Firefox 113, Chrome 80, Safari 16.4 or later.";
    return;
  }
  performance.mark("start");
  const payload = element("payload");
  const profile = await decodePayload(payload.textContent.trim());
  payload.remove();
  performance.measure("decode", "start");
  performance.mark("decoded");
  const page = new Page(profile);
  element("message").hidden = profile.size > 1;
  element("message").textContent = "There are no samples to draw.";
  page.restore();
  performance.measure("first-draw", "decoded");
  document.documentElement.dataset.state = "ready";
}

start().catch((error) => {
  element("message").hidden = false;
  element("message").textContent = `The data of this page cannot be read: ${error.message}`;
  throw error;
});
