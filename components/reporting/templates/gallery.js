"use strict";
// The gallery: one clip before and after one attack. All of it comes from #gallery-data.
(() => {
  const data = JSON.parse(document.getElementById("gallery-data").textContent);
  const root = document.getElementById("gallery");
  const find = (words) => root.querySelector(words);
  const BONES = [[0, 1], [1, 20], [2, 20], [3, 2], [4, 20], [5, 4], [6, 5], [7, 6], [8, 20], [9, 8],
    [10, 9], [11, 10], [12, 0], [13, 12], [14, 13], [15, 14], [16, 0], [17, 16], [18, 17], [19, 18],
    [21, 22], [22, 7], [23, 24], [24, 11]];
  const SECONDS = 3.2;  // one round of a clip on the screen, whatever it lasted
  const MOTION = matchMedia("(prefers-reduced-motion: reduce)");
  const state = { clip: 0, model: data.models[0], attack: (data.attacks[0] || {}).key,
    cell: data.cells[data.cells.length - 1].key, view: "front" };
  let shown = null;  // frames and joints of what is chosen
  let moment = 0, playing = !MOTION.matches, last = 0, wanted = 0;

  const element = (name, text, classes) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (classes) made.className = classes;
    return made;
  };
  const percent = (share) => (100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1) + "\u00a0%";
  const short = (value) => String(Number(value.toFixed(1)));
  const label = (number) => data.labels[number] || "class " + number;
  const outcomes = (clip = state.clip) => data.clips[clip].models[state.model];
  const attacked = (clip) => outcomes(clip)[state.cell + "/" + state.attack];

  // ---- choices: radio buttons, so that the arrow keys work as everywhere
  function choices(name, options, draw) {
    const place = find(`[data-choice=${name}]`);
    if (!place) return;
    for (const [value, words] of options) {
      const box = element("label"), input = element("input");
      input.type = "radio";
      input.name = "gallery-" + name;
      input.value = value;
      input.checked = String(state[name]) === String(value);
      input.addEventListener("change", () => {
        state[name] = name === "clip" ? Number(value) : value;
        box.scrollIntoView({ block: "nearest", inline: "nearest" });
        refresh();
      });
      box.append(input);
      if (draw) draw(box, value); else box.append(words);
      place.append(box);
    }
  }

  function clipCard(box, clip) {
    if (data.pictures) {
      const canvas = element("canvas");
      canvas.setAttribute("aria-hidden", "true");
      box.append(canvas);
      const clean = data.clips[clip].models[data.models[0]].clean;
      frames(clean.video, clean.frames).then((found) =>
        paint(canvas, found[Math.floor(found.length / 2)]));
    }
    box.append(element("span", label(data.clips[clip].label).replaceAll("/", "/\u200b")), element("span", "", "mark"));
  }

  function fate(clip) {
    if (!outcomes(clip).clean.right) return ["already wrong", "warn"];
    return attacked(clip).right ? ["✓ stands", "pass"] : ["✗ falls", "fail"];
  }

  // ---- pictures
  const cache = new Map();
  function frames(index, count) {
    if (!cache.has(index)) cache.set(index, decode(data.videos[index], count));
    return cache.get(index);
  }

  async function decode(base64, count) {
    const image = new Image();
    image.src = "data:image/webp;base64," + base64;
    await image.decode();
    const sheet = element("canvas"), width = image.width / count;
    sheet.width = image.width;
    sheet.height = image.height;
    const pen = sheet.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    return Array.from({ length: count }, (_, i) =>
      pen.getImageData(i * width, 0, width, image.height));
  }

  // colour = base + factor * (change - 128)
  function combined(change, factor, base) {
    const made = new ImageData(change.width, change.height);
    for (let i = 0; i < made.data.length; i++) {
      const from = base ? base.data[i] : 128;
      made.data[i] = i % 4 === 3 ? 255 : from + factor * (change.data[i] - 128);
    }
    return made;
  }

  // ---- joints
  function bytes(index) {
    return Uint8Array.from(atob(data.joints[index]), (letter) => letter.charCodeAt(0));
  }

  function joints(clean, hit) {
    const present = bytes(clean.present), still = new Int16Array(bytes(clean.joints).buffer);
    const before = Float32Array.from(still, (value) => value * clean.jointsStep);
    let after = null;
    if (hit && hit.joints !== null) {
      const moved = new Int8Array(bytes(hit.joints).buffer);
      after = before.map((value, i) => value + moved[i] * hit.jointsStep);
    }
    return { before, after, present, persons: present.length / clean.steps, steps: clean.steps };
  }

  function flat(values, at) {
    const side = state.view === "side" ? 2 : 0;
    return [values[at + side], data.metres ? -values[at + 1] : values[at + 1]];
  }

  function window_(body) {
    const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    body.present.forEach((there, slot) => {
      if (!there) return;
      for (const values of [body.before, body.after || body.before]) {
        for (let joint = 0; joint < 25; joint++) {
          flat(values, (slot * 25 + joint) * 3).forEach((value, axis) => {
            low[axis] = Math.min(low[axis], value);
            high[axis] = Math.max(high[axis], value);
          });
        }
      }
    });
    const size = Math.max(high[0] - low[0], high[1] - low[1], 1e-6) * 1.12;
    return { size, x: (low[0] + high[0]) / 2, y: (low[1] + high[1]) / 2 };
  }

  function drawBody(pen, body, values, step, colour, width) {
    const frame = body.frame, side = pen.canvas.width;
    const place = (at) => {
      const [x, y] = flat(values, at);
      return [((x - frame.x) / frame.size + 0.5) * side, ((y - frame.y) / frame.size + 0.5) * side];
    };
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = width;
    pen.lineCap = "round";
    for (let person = 0; person < body.persons; person++) {
      const slot = step * body.persons + person;
      if (!body.present[slot]) continue;
      const joint = (number) => place((slot * 25 + number) * 3);
      pen.beginPath();
      for (const [a, b] of BONES) {
        pen.moveTo(...joint(a));
        pen.lineTo(...joint(b));
      }
      pen.stroke();
      for (let number = 0; number < 25; number++) {
        pen.beginPath();
        pen.arc(...joint(number), width * 0.95, 0, 7);
        pen.fill();
      }
    }
  }

  function paint(canvas, image) {
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // ---- what is chosen
  async function refresh() {
    const turn = ++wanted, clean = outcomes().clean, hit = attacked(state.clip);
    root.querySelectorAll(".clips label").forEach((box, clip) => {
      const [words, kind] = fate(clip), mark = box.querySelector(".mark");
      mark.textContent = words;
      mark.className = "mark " + kind;
    });
    tell(clean, hit);
    if (!data.pictures) return;
    const made = { clean: await frames(clean.video, clean.frames), body: joints(clean, hit) };
    if (hit && hit.video !== null) {
      const changes = await frames(hit.video, clean.frames), step = 255 * hit.videoStep;
      made.attacked = changes.map((change, i) => combined(change, step, made.clean[i]));
      made.added = changes.map((change) => combined(change, step * hit.gain));
    }
    if (turn !== wanted) return;  // something else was chosen meanwhile
    made.body.frame = window_(made.body);
    shown = made;
    find("#frame").max = clean.steps - 1;
    draw();
    root.dataset.drawn = [state.clip, state.model, state.attack, state.cell, state.view].join(" ");
  }

  function draw() {
    if (!shown) return;
    const { clean, body } = shown, step = Math.min(Math.floor(moment), body.steps - 1);
    const frame = Math.floor(step * clean.length / body.steps);
    const grey = new ImageData(clean[0].width, clean[0].height);
    paint(find("#clean"), clean[frame]);
    paint(find("#attacked"), (shown.attacked || clean)[frame]);
    paint(find("#added"), shown.added ? shown.added[frame] : combined(grey, 0));
    const pen = find("#skeleton").getContext("2d"), style = getComputedStyle(root);
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    const still = style.getPropertyValue(body.after ? "--still" : "--main");
    drawBody(pen, body, body.before, step, still, 6);
    if (body.after) drawBody(pen, body, body.after, step, style.getPropertyValue("--moved"), 5);
    find("#frame").value = step;
    find(".player output").textContent = `${step + 1} / ${body.steps}`;
  }

  // ---- words
  function tell(clean, hit) {
    const attack = data.attacks.find((one) => one.key === state.attack).words;
    const where = { rgb: "the video", skeleton: "the skeleton", both: "video and skeleton" };
    const verdict = find(".verdict"), { label: own, labelKnown, id } = data.clips[state.clip];
    const says = (answer) => element("b", `${label(answer.best[0][0])} (${percent(answer.best[0][1])})`);
    verdict.replaceChildren(`${data.sampled ? "" : id + ": "}${state.model} says `, says(clean));
    if (!clean.right) {
      verdict.append(`. The clip shows ${label(own)}: wrong without any attack, so nothing attacks it.`);
    } else {
      const inside = attack.replace(/^[A-Z](?=[a-z])/, (letter) => letter.toLowerCase());
      verdict.append(`. After ${inside}, on ${where[state.cell]} it says `, says(hit), ". ");
      verdict.append(element("b", hit.right ? "It stands." : "It is fooled.", hit.right ? "pass" : "fail"));
    }
    const answers = find("[data-told=answers]");
    const right = labelKnown ? " – right" : " – its answer when clean";
    answers.replaceChildren(column("Clean", clean, own, right));
    if (hit) answers.append(column("Attacked", hit, own, right));
    if (!data.pictures) return;
    const told = (name, words) => { find(`[data-told=${name}]`).textContent = words; };
    const video = hit && hit.video !== null, bodies = hit && hit.joints !== null;
    told("attacked", video ? `each pixel by at most ${short(255 * hit.moved[0])} of 255`
      : "the video is untouched here");
    told("added", video ? `${hit.gain} times as strong; grey is no change` : "nothing");
    const far = bodies && (data.metres ? `${short(100 * hit.moved[1])} cm`
      : `${short(hit.moved[1])} pixels`);
    told("skeleton", bodies ? `grey clean, orange attacked; each coordinate by at most ${far}`
      : "untouched here");
  }

  function column(title, answer, own, right) {
    const place = element("div"), rows = answer.best.slice(0, 3);
    place.append(element("h3", title));
    if (!rows.some(([number]) => number === own)) rows.push([own, answer.own]);
    rows.forEach(([number, share], i) => {
      const kind = number === own ? " own" : i === 0 ? " wrong" : "";
      const row = element("div", undefined, "answer" + kind);
      const note = number === own ? right : "";
      row.append(element("span", label(number) + note), element("b", percent(share)), bar(share));
      place.append(row);
    });
    if (answer.weights) {
      const box = element("div", "", "weights"), ends = element("div", "", "ends");
      ends.append(element("span", `weight of the video ${percent(answer.weights[0])}`),
        element("span", `of the skeleton ${percent(answer.weights[1])}`));
      box.append(ends, bar(answer.weights[0]));
      place.append(box);
    }
    return place;
  }

  function bar(share) {
    const box = element("div", "", "bar"), fill = element("i");
    fill.style.width = 100 * share + "%";
    box.append(fill);
    return box;
  }

  // ---- the player
  function play(on) {
    playing = on;
    find("#play").textContent = on ? "Pause" : "Play";
  }

  function tick(now) {
    if (playing && shown && !document.hidden) {
      const steps = shown.body.steps, before = Math.floor(moment);
      moment = (moment + Math.min(now - last, 100) / 1000 * steps / SECONDS) % steps;
      if (Math.floor(moment) !== before) draw();
    }
    last = now;
    requestAnimationFrame(tick);
  }

  choices("clip", data.clips.map((_, i) => [i]), clipCard);
  choices("model", data.models.map((name) => [name, name]));
  choices("attack", data.attacks.map((one) => [one.key, one.words]));
  choices("cell", data.cells.map((one) => [one.key, one.words]));
  choices("view", [["front", "front"], ["side", "side"]]);
  refresh();
  if (!data.pictures) return;
  find("#play").addEventListener("click", () => play(!playing));
  find("#frame").addEventListener("input", (event) => {
    play(false);
    moment = Number(event.target.value);
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  play(playing);
  requestAnimationFrame(tick);
})();
