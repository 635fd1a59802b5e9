// Numbers and descriptions for people.

const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function formatPercent(share) {
  return `${(100 * share).toFixed(2)}%`;
}

function formatWeight(weight, unit) {
  if (unit !== "ns") {
    return COUNT.format(weight);
  }
  for (const [name, scale] of [["s", 1e9], ["ms", 1e6], ["us", 1e3]]) {
    if (Math.abs(weight) >= scale) {
      return `${(weight / scale).toFixed(2)} ${name}`;
    }
  }
  return `${weight.toFixed(0)} ns`;
}

function formatSamples(samples) {
  return `${COUNT.format(samples)} ${samples === 1 ? "sample" : "samples"}`;
}

function share(part, whole) {
  return whole > 0 ? part / whole : 0;
}

/**
 * How much a share grew: -1 (gone) over 0 to 1 (new), as FlameDiff.change in sberf/analysis/flame.py;
 * 0 where the numbers of samples do not differ more than by chance.
 */
function changeOf(tree, node) {
  const [before, samplesBefore, after, samplesAfter] = [0, 1, 2, 3].map((i) => tree.measure(i, node));
  const [all, allBefore, allOther, allAfter] = tree.profile.measures.map((measure) => measure.total[0]);
  const shareBefore = share(before, all);
  const shareAfter = share(after, allOther);
  if (shareBefore === shareAfter || !allBefore || !allAfter) {
    return 0;
  }
  const pooled = (samplesBefore + samplesAfter) / (allBefore + allAfter);
  const variance = pooled * (1 - pooled) * (1 / allBefore + 1 / allAfter);
  const z = variance > 0 ? (samplesAfter / allAfter - samplesBefore / allBefore) / Math.sqrt(variance) : 0;
  return Math.abs(z) < tree.profile.about.significant_z ? 0 : (shareAfter - shareBefore) / (shareAfter + shareBefore);
}

/** What is to be said about a node: its name, where it comes from, and rows of label and value. */
function describe(tree, node) {
  const { about } = tree.profile;
  const frame = tree.frame[node];
  const { name, module, file, line, kind } = about.frames;
  const source = about.files[file[frame]];
  return {
    name: name[frame],
    kind: about.kinds[kind[frame]] === "group" ? "" : about.palette[about.kinds[kind[frame]]].label,
    place: [about.modules[module[frame]], source && (line[frame] ? `${source}:${line[frame]}` : source)]
      .filter(Boolean)
      .join(" · "),
    rows: tree.profile.isDiff ? differenceRows(tree, node) : weightRows(tree, node),
  };
}

function weightRows(tree, node) {
  const { unit } = tree.profile.about;
  const weight = tree.measure(0, node);
  const all = tree.profile.measures[0].total[0];
  const rows = [
    [unit === "ns" ? "time" : "events", `${formatWeight(weight, unit)} in ${formatSamples(tree.measure(1, node))}`],
    ["of all", formatPercent(share(weight, all))],
  ];
  if (node !== 0) {
    rows.push(["of parent", formatPercent(share(weight, tree.measure(0, tree.parent[node])))]);
  }
  if (tree instanceof CallTree) {
    const self = tree.selfMeasure(0, node);
    rows.push(["self", self > 0 ? `${formatWeight(self, unit)}, ${formatPercent(share(self, all))} of all` : "none"]);
  }
  return rows;
}

function differenceRows(tree, node) {
  const { unit } = tree.profile.about;
  const all = tree.profile.measures.map((measure) => measure.total[0]);
  const shares = [0, 2].map((i) => share(tree.measure(i, node), all[i]));
  const rows = ["before", "after"].map((label, i) => [
    label,
    `${formatPercent(shares[i])}, ${formatWeight(tree.measure(2 * i, node), unit)} in ` +
      formatSamples(tree.measure(2 * i + 1, node)),
  ]);
  return [...rows, ["change", changeText(shares, changeOf(tree, node))]];
}

function changeText([before, after], change) {
  if (before === after) {
    return "none";
  }
  const points = `${after > before ? "+" : "−"}${Math.abs(100 * (after - before)).toFixed(2)} points`;
  if (change === 0) {
    return `${points}, no more than chance`;
  }
  if (before === 0) {
    return `${points}, new`;
  }
  return after === 0 ? `${points}, gone` : `${points}, ${(after / before).toFixed(2)} times`;
}

/** The same as one line, for the status bar and screen readers. */
function describeInLine(description) {
  const rows = description.rows.map(([label, value]) => `${label} ${value}`);
  return [description.name, description.place, ...rows].filter(Boolean).join(", ");
}

/** A name without parameter lists and template arguments: `a::B<C>::f(int)` -> `a::B::f`. */
function shortName(name) {
  if (!/[<(]/.test(name) || name.startsWith("<") || name.startsWith("[") || name.startsWith("(")) {
    return name;
  }
  let depth = 0;
  let short = "";
  for (const character of name.replace(/operator(<<|<=>|<=|<|->|>>|>=|>|\(\))/g, "operator")) {
    if ("<([".includes(character)) {
      depth++;
    } else if (">)]".includes(character)) {
      depth = Math.max(0, depth - 1);
    } else if (depth === 0) {
      short += character;
    }
  }
  return short.trim() || name;
}

/** The last part of a qualified name: `a::B::f` -> `f`. */
function lastPart(name) {
  return /^[\w:~$]+::([\w~$]+)$/.exec(name)?.[1] ?? name;
}
