"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== null) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const percent = (fraction) => `${Number((100 * fraction).toPrecision(4))}%`;
  const unique = (values) => [...new Set(values)];

  // ---- parts of the page: one is shown at a time -------------------------------------------------------------------
  const sections = [...document.querySelectorAll("section")];
  document.documentElement.classList.add("js");
  function showPart() {
    const target = byId(decodeURIComponent(location.hash.slice(1))) || sections[0];
    const part = target.closest("section") || sections[0];
    for (const section of sections) section.classList.toggle("current", section === part);
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${part.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (target !== part && part.contains(target)) target.scrollIntoView();
    else window.scrollTo(0, 0);
  }
  window.addEventListener("hashchange", showPart);

  // ---- every cell: sorted by a click on a heading, filtered ----------------------------------------------------------
  const table = byId("table"), body = table.tBodies[0], rows = [...body.rows], filters = byId("filters");
  const heads = [...table.tHead.rows[0].cells];
  function sortBy(column) {
    const head = heads[column], numeric = head.firstElementChild.dataset.kind === "n";
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => {
      const cell = row.cells[column];
      if (!numeric) return cell.textContent;
      return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    };
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what has no value comes last, either way
      return sign * (numeric ? a - b : a.localeCompare(b));
    });
    body.append(...keyed.map(([, row]) => row));
  }
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => sortBy(column));
  });
  function filter() {
    const wanted = new FormData(filters), method = wanted.get("method").trim().toLowerCase();
    const exact = ["dataset", "network", "setting", "fraction", "side"].filter((name) => wanted.get(name) !== "");
    let shown = 0;
    for (const row of rows) {
      const fits = exact.every((name) => row.dataset[name] === wanted.get(name))
        && row.cells[0].textContent.toLowerCase().includes(method);
      row.hidden = !fits;
      shown += fits;
    }
    byId("count").textContent = `${shown} of ${rows.length} cells`;
  }
  filters.addEventListener("input", filter);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));

  // ---- sets: picks and learned images --------------------------------------------------------------------------------
  const [SETTING, METHOD, FRACTION, SEED, PATH, LIST, SHEET, DATA] = [0, 1, 2, 3, 4, 5, 6, 7];
  function fill(select, values, label, wanted) {
    const before = wanted === undefined ? select.value : String(wanted);
    select.replaceChildren(...values.map((value) => make("option", label(value), { value })));
    if (values.map(String).includes(before)) select.value = before;
  }
  const numbers = (values) => unique(values).sort((a, b) => a - b);

  /** Return where in a sheet the image of an index is; undefined if it is none of those that the page holds. */
  function placeOf(sheet, index) {
    if (!sheet.i) return index;
    sheet.at ??= new Map(sheet.i.map((one, place) => [one, place]));
    return sheet.at.get(index);
  }
  /** Return the members of a set: {index, label, rank, weight, sheet, place} in their order. */
  function members(entry) {
    if (entry[SHEET] !== null) {
      const sheet = data.sheets[entry[SHEET]], seen = {};
      return sheet.l.map((label, place) => {
        seen[label] = (seen[label] ?? -1) + 1;
        return { index: place, label, rank: seen[label], sheet, place };
      });
    }
    const list = data.lists[entry[LIST]], sheet = data.tiles[entry[DATA]], seen = {};
    const labels = list.c.flatMap(([label, count]) => Array(count).fill(label));
    return list.i.map((index, place) => {
      seen[labels[place]] = (seen[labels[place]] ?? -1) + 1;
      const rank = list.b ? seen[labels[place]] : place, at = sheet && placeOf(sheet, index);
      return {
        index, label: labels[place], rank, weight: list.w && list.w[place], cost: list.k && list.k[place],
        sheet: at === undefined ? undefined : sheet, place: at,
      };
    });
  }
  function inWords(one, learned) {
    const weight = one.weight === undefined ? "" : `, weight ${one.weight}`;
    const cost = one.cost === undefined ? "" : `, cost of its group after it ${one.cost}`;
    return `class ${one.label}, rank ${one.rank}, ${learned ? "learned image" : "index"} ${one.index}${weight}${cost}`;
  }
  const sides = new Map(); // how wide a sheet is in pixels, when it is known
  function tile(one, words) {
    const { u, x, w, h } = one.sheet, scale = Math.max(1, Math.round(32 / h));
    const node = make("span", null, { class: "tile", role: "img", "aria-label": words, title: words });
    Object.assign(node.style, {
      width: `${w * scale}px`, height: `${h * scale}px`, backgroundSize: `${x * w * scale}px auto`,
      backgroundPosition: `${-(one.place % x) * w * scale}px ${-Math.floor(one.place / x) * h * scale}px`,
    });
    node.style.backgroundImage = `var(${variable(u)})`;
    return node;
  }
  function variable(uri) { // one copy of each sheet, which its tiles refer to
    if (!sides.has(uri)) {
      sides.set(uri, `--sheet-${sides.size}`);
      document.documentElement.style.setProperty(sides.get(uri), `url("${uri}")`);
    }
    return sides.get(uri);
  }
  const MOST = 400; // of a class, at once
  function byClass(some, learned) {
    const box = make("div", null), classes = numbers(some.map((one) => one.label));
    for (const label of classes) {
      const mine = some.filter((one) => one.label === label), line = make("div", null, { class: "class" });
      const row = make("div", null, { class: "row" });
      for (const one of mine.slice(0, MOST)) {
        const words = inWords(one, learned);
        row.append(one.sheet ? tile(one, words) : make("span", one.index, { class: "index", title: words }));
      }
      if (mine.length > MOST) row.append(make("span", `and ${mine.length - MOST} more`));
      line.append(make("b", `class ${label} (${mine.length})`), row);
      box.append(line);
    }
    return box;
  }
  /** Rows of a class are walked through by the arrow keys; what is under the pointer or focus is said below. */
  function explained(box) {
    const nodes = [...box.querySelectorAll(".tile, .index")];
    const help = "Point at one, or walk through them with the arrow keys: rank and index.";
    const facts = make("p", nodes.length ? help : "None.", { class: "facts", "aria-live": "polite" });
    nodes.forEach((node, place) => {
      node.tabIndex = place === 0 ? 0 : -1;
    });
    const say = (event) => {
      const node = event.target.closest("[title]");
      if (node) facts.textContent = node.title;
    };
    box.addEventListener("pointerover", say);
    box.addEventListener("focusin", say);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], place = nodes.indexOf(document.activeElement);
      const next = step === undefined ? undefined : nodes[place + step];
      if (place < 0 || !next) return;
      event.preventDefault();
      nodes[place].tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
    const all = make("div", null);
    all.append(box, facts);
    return all;
  }

  const picks = byId("pick-form"), buttons = byId("pick-methods");
  let method = null;
  function choosePicks(wanted = {}) {
    const { setting, fraction, seed } = picks.elements;
    fill(setting, numbers(data.entries.map((e) => e[SETTING])), (s) => data.settings[s], wanted.setting);
    const here = data.entries.filter((e) => e[SETTING] === Number(setting.value));
    fill(fraction, numbers(here.map((e) => e[FRACTION])), percent, wanted.fraction);
    const those = here.filter((e) => e[FRACTION] === Number(fraction.value));
    const own = wanted.method === undefined ? those : those.filter((e) => e[METHOD] === wanted.method);
    fill(seed, numbers(those.map((e) => e[SEED])), String, own.length ? own[0][SEED] : undefined);
    const entries = those.filter((e) => e[SEED] === Number(seed.value));
    if (wanted.method !== undefined) method = wanted.method;
    if (!entries.some((e) => e[METHOD] === method)) method = entries.length ? entries[0][METHOD] : null;
    buttons.replaceChildren(...entries.map((entry) => {
      const button = make("button", entry[METHOD], { type: "button", "aria-pressed": entry[METHOD] === method });
      button.addEventListener("click", () => {
        method = entry[METHOD];
        for (const one of buttons.children) one.setAttribute("aria-pressed", one === button);
        showPicks(entry);
      });
      return button;
    }));
    const chosen = entries.find((e) => e[METHOD] === method);
    if (chosen) showPicks(chosen);
    else byId("pick-shown").replaceChildren(make("p", "No set lies beside these records."));
  }
  function showPicks(entry) {
    const some = members(entry), learned = entry[SHEET] !== null, title = make("p", null);
    const what = learned ? "learned images" : "samples kept";
    title.append(`${entry[METHOD]}, ${percent(entry[FRACTION])}, seed ${entry[SEED]}: ${some.length} ${what}, ranks from 0 (`);
    title.append(make("a", "record", { href: encodeURI(entry[PATH]) }), "). ");
    const shown = some.filter((one) => one.sheet).length;
    if (!shown) title.append("The images were not at hand: indices into the training set. ");
    else if (shown < some.length) title.append(`${shown} have their image here, those of lowest rank; indices stand for the others. `);
    if (/\/fraction[^/]*$/.test(entry[PATH])) { // memories of continual learning are not exported
      title.append(" To load it: ", make("code", `python -m lcmat export ${data.folder}/${entry[PATH]} --to FOLDER`));
      title.append(", then ", make("code", 'datasets.load_dataset("FOLDER")'), ".");
    }
    byId("pick-shown").replaceChildren(title, explained(byClass(some, learned)));
  }
  picks.addEventListener("input", () => choosePicks());
  picks.addEventListener("submit", (event) => event.preventDefault());

  // ---- two subsets ---------------------------------------------------------------------------------------------------
  const two = byId("compare-form"), chosenSets = data.entries.filter((e) => e[LIST] !== null);
  function chooseTwo(wanted = {}) {
    const named = two.elements;
    fill(named.setting, numbers(chosenSets.map((e) => e[SETTING])), (s) => data.settings[s], wanted.setting);
    const here = chosenSets.filter((e) => e[SETTING] === Number(named.setting.value));
    const sets = ["A", "B"].map((letter, place) => {
      const methods = unique(here.map((e) => e[METHOD]));
      const field = named[`method${letter}`], fresh = !methods.includes(field.value);
      fill(field, methods, String, fresh ? methods[Math.min(place, methods.length - 1)] : undefined);
      const own = here.filter((e) => e[METHOD] === field.value), fraction = named[`fraction${letter}`];
      fill(fraction, numbers(own.map((e) => e[FRACTION])), percent);
      const mine = own.filter((e) => e[FRACTION] === Number(fraction.value)), seed = named[`seed${letter}`];
      fill(seed, numbers(mine.map((e) => e[SEED])), String);
      return mine.find((e) => e[SEED] === Number(seed.value));
    });
    if (sets[0] && sets[1]) showTwo(...sets);
  }
  function showTwo(a, b) {
    const [inA, inB] = [members(a), members(b)], [ofA, ofB] = [inA, inB].map((some) => new Set(some.map((m) => m.index)));
    const [onlyA, onlyB] = [inA.filter((m) => !ofB.has(m.index)), inB.filter((m) => !ofA.has(m.index))];
    const both = inA.filter((m) => ofB.has(m.index)), union = ofA.size + onlyB.length;
    const box = make("div", null, { class: "two" });
    for (const [name, some] of [["Only in A", onlyA], ["Only in B", onlyB], ["In both (ranks of A)", both]]) {
      const part = make("div", null);
      part.append(make("h3", `${name}: ${some.length}`), explained(byClass(some, false)));
      box.append(part);
    }
    const share = union ? (both.length / union).toFixed(3) : "–";
    byId("compare-shown").replaceChildren(
      make("p", `A: ${inA.length} samples, B: ${inB.length}; |A ∩ B| / |A ∪ B| = ${share}.`), box);
  }
  two.addEventListener("input", () => chooseTwo());
  two.addEventListener("submit", (event) => event.preventDefault());

  // ---- links that set filters or choose a set ------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-setting]");
    if (!link) return;
    const { setting, fraction, side, method: name } = link.dataset;
    if (link.hash === "#picks") choosePicks({ setting, fraction, method: name });
    else {
      filters.reset();
      filters.elements.setting.value = setting;
      filters.elements.fraction.value = fraction;
      filters.elements.side.value = side ?? "";
      filter();
    }
  });

  // ---- figures -------------------------------------------------------------------------------------------------------
  const large = byId("large");
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const image = large.querySelector("img"), small = button.querySelector("img");
      image.src = small.src;
      image.alt = small.alt;
      large.showModal();
    });
  }

  const visible = data.entries.find((e) => data.tiles[e[DATA]]) || {}; // images say more than indices
  filter();
  choosePicks({ setting: visible[SETTING] });
  chooseTwo({ setting: visible[SETTING] });
  showPart();
})();
