// The data: decoding the embedded payload, the two trees over it, and searching.

/**
 * Read the payload: base64 of a deflated block that starts with the length of a JSON text (4 bytes),
 * the JSON text, then the columns.  sberf/views/flame_data.py writes it.
 */
async function decodePayload(base64) {
  const deflated = Uint8Array.fromBase64
    ? Uint8Array.fromBase64(base64)
    : Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const block = new Uint8Array(await new Response(stream).arrayBuffer());
  const length = new DataView(block.buffer).getUint32(0, true);
  const about = JSON.parse(new TextDecoder().decode(block.subarray(4, 4 + length)));
  return new Profile(about, readColumns(about, block, 4 + length));
}

/**
 * A column of n numbers is stored as byte planes (all lowest bytes, then all second bytes, ...),
 * which deflates well; numbers are multiples of the column's scale.
 */
function readColumns(about, block, offset) {
  const columns = {};
  for (const { name, bytes, scale } of about.columns) {
    const values = bytes * 8 <= 32 && scale === 1 ? new Uint32Array(about.nodes) : new Float64Array(about.nodes);
    for (let plane = 0; plane < bytes; plane++) {
      const factor = scale * 256 ** plane;
      for (let node = 0; node < values.length; node++) {
        values[node] += block[offset + node] * factor;
      }
      offset += about.nodes;
    }
    columns[name] = values;
  }
  return columns;
}

/**
 * The trie of all stacks in preorder: a node, then its subtrees.
 *
 * `measures` are what is known of each node, summed over the subtree (`total`) and its own (`self`):
 * one pair of weight and samples, or two pairs (before, after) when two recordings are compared.
 * `width` is what the drawn width stands for.
 */
class Profile {
  constructor(about, columns) {
    this.about = about;
    this.frame = columns.frame;
    this.names = about.frames.name;
    const pairs = about.comparison ? ["before", "after"] : ["all"];
    this.isDiff = pairs.length === 2;
    const { parent, end } = relations(columns.depth);
    this.parent = parent;
    this.end = end; // the node after the subtree
    this.measures = pairs.flatMap((pair) => {
      const weight = columns[`${pair}_weight`];
      // Samples are stored only where their weights differ.
      const { scale } = about.columns.find(({ name }) => name === `${pair}_weight`);
      const samples = columns[`${pair}_samples`] ?? weight.map((value) => value / scale);
      return [weight, samples].map((self) => ({ self, total: totals(parent, self) }));
    });
    this.selfWidth = this.widths("self");
    this.width = totals(parent, this.selfWidth);
  }

  get size() {
    return this.frame.length;
  }

  /** Weights, or for a comparison the mean of both shares: nothing that only one of them has vanishes. */
  widths(kind) {
    const [first, , second] = this.measures;
    if (!this.isDiff) {
      return first[kind];
    }
    const before = first.total[0] || 1;
    const after = second.total[0] || 1;
    return first[kind].map((weight, node) => (weight / before + second[kind][node] / after) / 2);
  }
}

function relations(depth) {
  const parent = new Int32Array(depth.length);
  const end = new Int32Array(depth.length).fill(depth.length);
  const path = [0];
  for (let node = 1; node < depth.length; node++) {
    while (path.length > depth[node]) {
      end[path.pop()] = node;
    }
    parent[node] = path[path.length - 1];
    path.push(node);
  }
  return { parent, end };
}

function totals(parent, self) {
  const total = Float64Array.from(self);
  for (let node = total.length - 1; node > 0; node--) {
    total[parent[node]] += total[node];
  }
  return total;
}

/**
 * What the two trees share: the order of children, and paths that name a node.
 *
 * A tree has for each node number (0 is the root): frame[], parent[], width[], measure(i, node),
 * selfMeasure(i, node) and unorderedChildren(node).
 */
class Tree {
  constructor(profile) {
    this.profile = profile;
    this.byName = false;
    this.ordered = new Map();
  }

  setOrder(byName) {
    this.byName = byName;
    this.ordered.clear();
  }

  /** The children in drawing order: heaviest first, or by name (frames are numbered by name). */
  children(node) {
    let children = this.ordered.get(node);
    if (children === undefined) {
      const byName = (a, b) => this.frame[a] - this.frame[b];
      children = this.unorderedChildren(node);
      children.sort(this.byName ? byName : (a, b) => this.width[b] - this.width[a] || byName(a, b));
      this.ordered.set(node, children);
    }
    return children;
  }

  /** The nodes from the root to `node`, both included. */
  ancestry(node) {
    const path = [node];
    while (path[0] !== 0) {
      path.unshift(this.parent[path[0]]);
    }
    return path;
  }

  /** Where the node begins, in the unit of width. */
  start(node) {
    let start = 0;
    while (node !== 0) {
      const parent = this.parent[node];
      for (const sibling of this.children(parent)) {
        if (sibling === node) {
          break;
        }
        start += this.width[sibling];
      }
      node = parent;
    }
    return start;
  }

  /** The node's name in an address: the frames on the way to it. */
  address(node) {
    return this.ancestry(node).slice(1).map((step) => this.frame[step]).join(".");
  }

  /** The node with that address; null when there is none. */
  find(address) {
    let node = 0;
    for (const step of address === "" ? [] : address.split(".")) {
      const next = this.children(node).find((child) => String(this.frame[child]) === step);
      if (next === undefined) {
        return null;
      }
      node = next;
    }
    return node;
  }
}

/** From the threads' entries to the functions that ran. */
class CallTree extends Tree {
  constructor(profile) {
    super(profile);
    this.frame = profile.frame;
    this.parent = profile.parent;
    this.width = profile.width;
  }

  measure(index, node) {
    return this.profile.measures[index].total[node];
  }

  selfMeasure(index, node) {
    return this.profile.measures[index].self[node];
  }

  unorderedChildren(node) {
    const { end } = this.profile;
    const children = [];
    for (let child = node + 1; child < end[node]; child = end[child]) {
      children.push(child);
    }
    return children;
  }
}

/**
 * From the functions that ran to their callers, made where it is looked at.
 *
 * A node is a run of stacks (`order`, each stack known by the node in which it ends) that have the same
 * last frames; `cursor` is the next frame towards the entry.  Expanding a node groups its run by that frame.
 */
class CallerTree extends Tree {
  constructor(profile) {
    super(profile);
    const ends = [];
    for (let node = 1; node < profile.size; node++) {
      if (profile.selfWidth[node] > 0) {
        ends.push(node);
      }
    }
    this.order = Int32Array.from(ends);
    this.cursor = Int32Array.from(ends);
    this.slot = new Int32Array(profile.names.length).fill(-1);
    this.frame = [profile.frame[0]];
    this.parent = [0];
    this.width = [profile.width[0]];
    this.first = [0];
    this.last = [ends.length];
    this.known = new Map();
  }

  measure(index, node) {
    const { self } = this.profile.measures[index];
    let sum = 0;
    for (let i = this.first[node]; i < this.last[node]; i++) {
      sum += self[this.order[i]];
    }
    return sum;
  }

  selfMeasure(index, node) {
    return node === 0 ? 0 : this.measure(index, node);
  }

  unorderedChildren(node) {
    let children = this.known.get(node);
    if (children === undefined) {
      children = this.expand(node);
      this.known.set(node, children);
    }
    return children.slice();
  }

  expand(node) {
    const groups = this.group(node);
    const { selfWidth, parent } = this.profile;
    const order = groups.flatMap((group) => group.stacks);
    const cursor = groups.flatMap((group) => group.cursors);
    this.order.set(order, this.first[node]);
    this.cursor.set(cursor.map((at) => parent[at]), this.first[node]);
    let first = this.first[node];
    return groups.filter((group) => group.frame !== null).map((group) => {
      const child = this.frame.length;
      this.frame.push(group.frame);
      this.parent.push(node);
      this.width.push(group.stacks.reduce((sum, stack) => sum + selfWidth[stack], 0));
      this.first.push(first);
      first += group.stacks.length;
      this.last.push(first);
      return child;
    });
  }

  /** The node's stacks by their next frame; those that have none come last, with the frame null. */
  group(node) {
    const groups = [];
    const ended = { frame: null, stacks: [], cursors: [] };
    for (let i = this.first[node]; i < this.last[node]; i++) {
      const at = this.cursor[i];
      let group = ended;
      if (at !== 0) {
        const frame = this.profile.frame[at];
        if (this.slot[frame] < 0) {
          this.slot[frame] = groups.length;
          groups.push({ frame, stacks: [], cursors: [] });
        }
        group = groups[this.slot[frame]];
      }
      group.stacks.push(this.order[i]);
      group.cursors.push(at);
    }
    for (const { frame } of groups) {
      this.slot[frame] = -1;
    }
    return [...groups, ended];
  }
}

/** What a search term asks for: text in any case, or /a regular expression/.  Null: nothing. */
function matcher(term) {
  const pattern = /^\/(.+?)(?:\/([iu]*))?$/su.exec(term);
  if (pattern) {
    const expression = new RegExp(pattern[1], pattern[2] ?? ""); // throws SyntaxError
    return (text) => expression.test(text);
  }
  const lower = term.trim().toLowerCase();
  return lower === "" ? null : (text) => text.toLowerCase().includes(lower);
}

/** Which frames match by name or module: an array with 1 for each that does; null when nothing is asked. */
function matchingFrames(profile, term) {
  const matches = matcher(term);
  if (matches === null) {
    return null;
  }
  const { name, module } = profile.about.frames;
  const modules = profile.about.modules.map((text) => matches(text));
  const found = new Uint8Array(name.length);
  for (let frame = 0; frame < name.length; frame++) {
    found[frame] = modules[module[frame]] || matches(name[frame]) ? 1 : 0;
  }
  found[profile.frame[0]] = 0; // everything is below the root
  return found;
}

/** The weights of the stacks below `top` that have a matching frame, each counted once: one for each pair. */
function matchedWeights(profile, found, top = 0) {
  const sums = profile.isDiff ? [0, 0] : [0];
  for (let node = top; node < profile.end[top]; ) {
    if (found[profile.frame[node]]) {
      sums.forEach((_, pair) => (sums[pair] += profile.measures[2 * pair].total[node]));
      node = profile.end[node];
    } else {
      node++;
    }
  }
  return sums;
}
