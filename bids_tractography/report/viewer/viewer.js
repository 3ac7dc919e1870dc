/* Streamlines, slices and their controls on one canvas: plain WebGL 2, data from the page itself. */
"use strict";
(() => {
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const AXES = ["x", "y", "z"];
const ROW = 4096;                       // vertices in a row of the textures
const ANY = 1e9;

/* ---- data ---- */

async function inflate(id) {
  const text = atob($("#" + id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/* See Sample.packed. Vertices are x, y, z in units and the length; before and behind each
   streamline lies a joint of no area, whose length is negative. */
function decode(bytes, meta) {
  const n = meta.streamlines, total = meta.points, steps = total - n;
  let at = 0;
  const take = (Kind, count) => {
    const size = count * Kind.BYTES_PER_ELEMENT, part = new Kind(bytes.slice(at, at + size).buffer);
    at += size;
    return part;
  };
  const counts = take(Uint32Array, n), lengths = take(Uint16Array, n);
  const heads = take(Int16Array, 3 * n), low = take(Uint8Array, 3 * steps), high = take(Uint8Array, 3 * steps);
  const rows = Math.max(1, Math.ceil((total + 2 * n + 2) / ROW));
  const vertices = new Int16Array(4 * ROW * rows), first = new Uint32Array(n + 1);
  let p = 0, k = 0;
  const step = i => { const folded = low[i] | high[i] << 8; return folded >>> 1 ^ -(folded & 1); };
  const put = (x, y, z, w) => { vertices[p] = x; vertices[p + 1] = y; vertices[p + 2] = z; vertices[p + 3] = w; p += 4; };
  for (let s = 0; s < n; s++) {
    let x = heads[s], y = heads[n + s], z = heads[2 * n + s];
    const w = Math.max(1, Math.min(32767, lengths[s]));
    first[s] = p >> 2;
    put(x, y, z, -w);
    for (let i = 0; i < counts[s]; i++) {
      if (i) { x += step(k); y += step(steps + k); z += step(2 * steps + k); k++; }
      put(x, y, z, w);
    }
    put(x, y, z, -w);
  }
  first[n] = p >> 2;
  return { vertices, first, rows };
}

/* ---- rotations as quaternions, matrices column by column ---- */

const times = (a, b) => [
  a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1], a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0],
  a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3], a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2]];
const about = (x, y, z, angle) => { const s = Math.sin(angle / 2); return [x * s, y * s, z * s, Math.cos(angle / 2)]; };
const unit = q => { const norm = Math.hypot(...q); return q.map(v => v / norm); };
const matrix = ([x, y, z, w]) => new Float32Array([
  1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w), 0, 2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w), 0,
  2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y), 0, 0, 0, 0, 1]);
const H = Math.SQRT1_2;
const VIEWS = {                         // from L the viewer sees anterior on the left, and so on
  S: [0, 0, 0, 1], I: [0, 1, 0, 0], P: [-H, 0, 0, H], A: [0, H, H, 0], L: [-.5, .5, .5, .5], R: [-.5, -.5, -.5, .5],
};
VIEWS.H = unit(times(about(1, 0, 0, .35), times(about(0, 1, 0, .6), VIEWS.L)));

/* ---- shaders ---- */

const LINE_VERTEX = `#version 300 es
precision highp float; precision highp isampler2D; precision highp usampler2D;
uniform isampler2D points; uniform usampler2D values;
uniform mat4 rotation, projection; uniform vec3 centre, plain; uniform float size, radius, lengthUnit;
uniform vec2 lengths, ramp; uniform int colour;
out vec3 tint, place; out float side, along; out vec2 across;
ivec4 get(int p) { return texelFetch(points, ivec2(p % ${ROW}, p / ${ROW}), 0); }
vec3 shade(float t) { t = clamp(t, 0., 1.); return mix(mix(vec3(.27, .1, .5), vec3(.13, .57, .55), min(t * 2., 1.)), vec3(.99, .9, .14), max(t * 2. - 1., 0.)); }
void main() {
  int p = gl_VertexID >> 1;
  ivec4 here = get(p);
  float l = float(abs(here.w)) * lengthUnit;
  side = (gl_VertexID & 1) == 0 ? -1. : 1.;
  tint = place = vec3(0); across = vec2(1, 0); along = 0.;
  if (l < lengths.x || l > lengths.y) { gl_Position = vec4(2, 2, 2, 1); return; }
  vec3 direction = normalize(vec3(get(p + 1).xyz - get(max(p - 1, 0)).xyz) + vec3(1e-4, 0, 0));
  place = vec3(here.xyz) * size;
  vec4 seen = rotation * vec4(place - centre, 1.);
  vec3 turned = mat3(rotation) * direction;
  float flat_ = length(turned.xy);
  across = flat_ > 1e-3 ? vec2(-turned.y, turned.x) / flat_ : vec2(1, 0);
  if (here.w > 0) seen.xy += across * side * radius;
  gl_Position = projection * seen;
  along = turned.z;
  float value = float(texelFetch(values, ivec2(p % ${ROW}, p / ${ROW}), 0).r) / 255.;
  tint = colour == 0 ? abs(direction) : colour == 1 ? shade((l - ramp.x) / (ramp.y - ramp.x)) : colour == 2 ? plain : shade(value);
}`;
const LINE_FRAGMENT = `#version 300 es
precision highp float;
in vec3 tint, place; in float side, along; in vec2 across;
uniform vec3 at, sliced; uniform float alpha, near, far, detail, clip, slab;
uniform bool clear;
out vec4 result;
void main() {
  if (slab > 0. && dot(sliced, step(abs(place - at), vec3(slab / 2.))) == 0.) discard;
  if (clip != 0. && all(greaterThan(mix(vec3(1), clip * (place - at), sliced), vec3(0)))) discard;
  if (clear) { result = vec4(tint * alpha, alpha); return; }
  float facing = sqrt(max(1. - along * along, 0.));
  vec3 normal = normalize(vec3(across * side, sqrt(max(1. - side * side, 0.)) * facing + .15));
  float light = max(dot(normal, vec3(-.21, .38, .9)), 0.);
  float depth = clamp((gl_FragCoord.z - near) / (far - near), 0., 1.);
  vec3 base = tint * 1.12 + .03;
  vec3 thin = base * (.62 + .38 * facing);
  vec3 tube = (base * (.25 + .85 * light) + .22 * pow(light, 30.)) * smoothstep(1., .72, abs(side));
  result = vec4(mix(thin, tube, detail) * mix(1.1, .32, depth), 1);
}`;
const SLICE_VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in vec3 place; uniform mat4 rotation, projection, inverse_; uniform vec3 centre, shape; out vec3 where;
void main() { where = ((inverse_ * vec4(place, 1)).xyz + .5) / shape; gl_Position = projection * (rotation * vec4(place - centre, 1)); }`;
const SLICE_FRAGMENT = `#version 300 es
precision highp float; precision highp sampler3D;
in vec3 where; uniform sampler3D volume, density; uniform int image; out vec4 result;
vec3 heat(float t) { return clamp(vec3(t * 2.2 - .1, t * t * 1.35 - .1, t < .5 ? t * 1.2 : t > .8 ? (t - .8) * 3.2 : .6 - (t - .5) * 2.), 0., 1.); }
void main() {
  if (any(lessThan(where, vec3(0))) || any(greaterThan(where, vec3(1)))) discard;
  vec4 v = texture(volume, where);
  if (v.a < .3) discard;
  vec3 c = image == 0 ? vec3(length(v.rgb)) / .85 : image == 1 ? v.rgb / .75 : heat(texture(density, where).r);
  result = vec4(pow(clamp(c, 0., 1.), vec3(.8)), 1);
}`;

function program(gl, ...sources) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, sources[0]], [gl.FRAGMENT_SHADER, sources[1]]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw Error(gl.getProgramInfoLog(made));
  const uniforms = { program: made };
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    uniforms[name] = gl.getUniformLocation(made, name);
  }
  return uniforms;
}

/* ---- the viewer ---- */

async function start(root) {
  const canvas = $("canvas", root), meta = JSON.parse($("#viewer-meta").textContent);
  const gl = canvas.getContext("webgl2", { alpha: false, preserveDrawingBuffer: true, powerPreference: "high-performance" });
  if (!gl || typeof DecompressionStream === "undefined") { root.classList.add("no-webgl"); return; }
  const { vertices, first, rows } = decode(await inflate("viewer-streamlines"), meta);
  const values = meta.values.length ? await inflate("viewer-values") : null;
  const texture = (place, target) => {
    gl.activeTexture(gl.TEXTURE0 + place);
    gl.bindTexture(target, gl.createTexture());
    const how = target === gl.TEXTURE_3D ? gl.LINEAR : gl.NEAREST;
    for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, key, how);
    for (const key of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(target, key, gl.CLAMP_TO_EDGE);
  };
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  texture(0, gl.TEXTURE_2D);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16I, ROW, rows, 0, gl.RGBA_INTEGER, gl.SHORT, vertices);
  texture(1, gl.TEXTURE_2D);
  const fillValues = which => {
    const each = new Uint8Array(which < 0 ? 1 : ROW * rows);
    if (which >= 0) for (let s = 0; s < meta.streamlines; s++) each.fill(values[which * meta.streamlines + s], first[s], first[s + 1]);
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R8UI, which < 0 ? 1 : ROW, which < 0 ? 1 : rows, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, each);
  };
  fillValues(-1);
  const line = program(gl, LINE_VERTEX, LINE_FRAGMENT), lines = gl.createVertexArray();
  let slice, plane, inverse;
  if (meta.shape) {
    const bytes = await inflate("viewer-volume"), n = meta.shape[0] * meta.shape[1] * meta.shape[2], colours = new Uint8Array(4 * n);
    for (let i = 0; i < n; i++) for (let c = 0; c < 4; c++) colours[4 * i + c] = bytes[c * n + i];
    texture(2, gl.TEXTURE_3D);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.RGBA8, ...meta.shape, 0, gl.RGBA, gl.UNSIGNED_BYTE, colours);
    texture(3, gl.TEXTURE_3D);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, ...meta.shape, 0, gl.RED, gl.UNSIGNED_BYTE, bytes.subarray(4 * n));
    slice = program(gl, SLICE_VERTEX, SLICE_FRAGMENT);
    plane = gl.createVertexArray();
    gl.bindVertexArray(plane);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, 48, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    const m = meta.inverse;
    inverse = new Float32Array([0, 1, 2, 3].flatMap(c => [m[0][c], m[1][c], m[2][c], c === 3 ? 1 : 0]));
  }
  const size = meta.radius, all = meta.streamlines;
  const state = {
    turn: VIEWS.H, zoom: 1, pan: [0, 0], shown: all, lengths: [0, ANY], radius: .2, colour: 0, clear: false, image: 1,
    slices: [0, 0, 0], at: [...meta.centre], slab: 0, clip: 0, moving: false, budget: all, still: all,
  };
  let pending = false;
  const request = () => { if (!pending) { pending = true; requestAnimationFrame(draw); } };
  const labels = $$(".axis", root), told = $(".told", root);

  function draw() {
    pending = false;
    const density = Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * density)), height = Math.max(1, Math.round(canvas.clientHeight * density));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    gl.viewport(0, 0, width, height);
    gl.clearColor(.055, .059, .071, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const scale = state.zoom / size, shape = width / height, sx = shape > 1 ? scale / shape : scale, sy = shape > 1 ? scale : scale * shape, sz = 1 / (size * 2.4);
    const projection = new Float32Array([sx, 0, 0, 0, 0, sy, 0, 0, 0, 0, -sz, 0, ...state.pan, 0, 1]), rotation = matrix(state.turn);
    const common = uniforms => {
      gl.useProgram(uniforms.program);
      gl.uniformMatrix4fv(uniforms.rotation, false, rotation);
      gl.uniformMatrix4fv(uniforms.projection, false, projection);
      gl.uniform3fv(uniforms.centre, meta.centre);
    };
    const on = [0, 1, 2].filter(a => state.slices[a]);
    if (slice && on.length) {
      common(slice);
      gl.bindVertexArray(plane);
      gl.uniformMatrix4fv(slice.inverse_, false, inverse);
      gl.uniform3fv(slice.shape, meta.shape);
      gl.uniform1i(slice.volume, 2);
      gl.uniform1i(slice.density, 3);
      gl.uniform1i(slice.image, state.image);
      for (const a of on) {
        const corners = [];
        for (const [u, v] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
          const corner = [0, 0, 0], [b, c] = [(a + 1) % 3, (a + 2) % 3];
          corner[a] = state.at[a];
          corner[b] = meta.centre[b] + (u ? 2 : -2) * size;
          corner[c] = meta.centre[c] + (v ? 2 : -2) * size;
          corners.push(...corner);
        }
        gl.bufferSubData(gl.ARRAY_BUFFER, 0, new Float32Array(corners));
        gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      }
    }
    const pixels = state.zoom * Math.min(width, height) / 2 / size;      // in a millimetre
    const n = Math.min(state.shown, state.moving ? state.budget : state.still), radius = Math.max(state.radius, .55 / pixels);
    common(line);
    gl.bindVertexArray(lines);
    gl.uniform1i(line.points, 0);
    gl.uniform1i(line.values, 1);
    gl.uniform1f(line.size, meta.unit);
    gl.uniform1f(line.lengthUnit, meta.lengthUnit);
    gl.uniform1f(line.radius, radius);
    gl.uniform1f(line.detail, Math.min(1, Math.max(0, (2 * radius * pixels - 2) / 3)));  // shading of thin lines is noise
    gl.uniform2fv(line.lengths, state.lengths);
    gl.uniform2f(line.ramp, 0, +field("longest").max);
    gl.uniform1i(line.colour, state.colour);
    gl.uniform3f(line.plain, .86, .74, .52);
    gl.uniform1f(line.slab, on.length ? state.slab : 0);
    gl.uniform3fv(line.at, state.at);
    gl.uniform3fv(line.sliced, state.slices);
    gl.uniform1f(line.clip, on.length ? state.clip : 0);
    gl.uniform1i(line.clear, state.clear ? 1 : 0);
    gl.uniform1f(line.alpha, Math.max(1.6 / 255, Math.min(.1, 160 / Math.max(n, 1))));
    gl.uniform1f(line.near, .5 - .45 * size * sz);
    gl.uniform1f(line.far, .5 + .45 * size * sz);
    if (state.clear) { gl.enable(gl.BLEND); gl.blendFunc(gl.ONE, gl.ONE); gl.depthMask(false); }
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 2 * first[n]);
    gl.disable(gl.BLEND);
    gl.depthMask(true);
    root.dataset.drawn = n;
    const slow = state.shown > state.still && !state.moving ? `This machine is slow: ${count(n)} are drawn` : "";
    if (told.textContent !== slow) told.textContent = slow;
    const ends = { L: [-1, 0, 0], R: [1, 0, 0], P: [0, -1, 0], A: [0, 1, 0], I: [0, 0, -1], S: [0, 0, 1] };
    for (const label of labels) {
      const end = ends[label.dataset.axis], axis = end.findIndex(v => v), reach = (meta.box[1][axis] - meta.box[0][axis]) / 2 + size * .1;
      const [x, y, z] = [0, 1, 2].map(r => end.reduce((sum, v, c) => sum + rotation[4 * c + r] * v, 0));
      label.style.left = 50 + 50 * (x * reach * sx + state.pan[0]) + "%";
      label.style.top = 50 - 50 * (y * reach * sy + state.pan[1]) + "%";
      label.style.opacity = Math.abs(z) > .9 ? 0 : z < -.2 ? .5 : 1;
    }
  }

  /* While it moves, as many are drawn as this machine can. */
  let before = 0, settling;
  function moved() {
    const now = performance.now(), passed = now - before;
    if (before && passed < 500) state.budget = Math.round(passed > 50 ? Math.max(500, state.budget * .7) : passed < 24 ? Math.min(all, state.budget * 1.1) : state.budget);
    before = now;
    state.moving = true;
    clearTimeout(settling);
    settling = setTimeout(() => { state.moving = false; before = 0; request(); }, 180);
    request();
  }
  const rotate = (x, y, z, angle) => { state.turn = unit(times(about(x, y, z, angle), state.turn)); moved(); };
  const zoom = factor => { state.zoom = Math.min(25, Math.max(.4, state.zoom * factor)); moved(); };
  const show = name => { Object.assign(state, { turn: VIEWS[name], zoom: 1, pan: [0, 0] }); request(); };

  const pointers = new Map();
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.focus({ preventScroll: true });
  });
  canvas.addEventListener("pointermove", event => {
    const last = pointers.get(event.pointerId);
    if (!last) return;
    const dx = event.clientX - last[0], dy = event.clientY - last[1], way = Math.hypot(dx, dy);
    const pan = share => { state.pan[0] += 2 * share * dx / canvas.clientWidth; state.pan[1] -= 2 * share * dy / canvas.clientHeight; moved(); };
    if (pointers.size > 1) {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = p => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      zoom(apart([event.clientX, event.clientY]) / apart(last));
      pan(.5);
    } else if (event.buttons & 2 || event.shiftKey) pan(1);
    else if (way) rotate(dy / way, dx / way, 0, way / Math.min(canvas.clientWidth, canvas.clientHeight) * Math.PI);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, event => pointers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("wheel", event => {       // the page scrolls until the canvas has been clicked
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * .0012));
  }, { passive: false });
  canvas.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const turn = { ArrowLeft: [0, 1, 0, -.1], ArrowRight: [0, 1, 0, .1], ArrowUp: [1, 0, 0, -.1], ArrowDown: [1, 0, 0, .1] }[event.key];
    const view = event.key.length === 1 && event.key.toUpperCase();
    if (turn) rotate(...turn);
    else if (event.key === "+" || event.key === "=") zoom(1.15);
    else if (event.key === "-") zoom(1 / 1.15);
    else if (view in VIEWS) show(view);
    else return;
    event.preventDefault();
  });
  $$("[data-view]", root).forEach(button => button.addEventListener("click", () => show(button.dataset.view)));
  $("[data-save]", root).addEventListener("click", () => {
    draw();
    const link = document.createElement("a");
    link.href = canvas.toDataURL("image/png");
    link.download = meta.name + "_view.png";
    link.click();
  });

  /* ---- controls: each changes the state and says its value ---- */
  const count = number => number.toLocaleString("en");
  const field = name => $(`[name=${name}]`, root);
  const bind = (name, change) => {
    const input = field(name), output = $(`[data-for=${name}]`, root);
    if (!input) return;
    const apply = () => { const text = change(input); if (output) output.textContent = text; };
    input.addEventListener("input", () => { apply(); request(); });
    apply();
  };
  const legend = document.createElement("p");
  legend.className = "legend";
  field("colour").closest("label").after(legend);
  $("form", root).addEventListener("submit", event => event.preventDefault());
  bind("shown", ({ value }) => count(state.shown = Math.max(1, Math.round(all * (value / 100) ** 2))));
  bind("shortest", ({ value }) => { state.lengths[0] = +value; return `${value} mm`; });
  bind("longest", ({ value, max }) => { state.lengths[1] = value === max ? ANY : +value; return value === max ? "any" : `${value} mm`; });
  bind("width", ({ value }) => { state.radius = value / 20; return `${(value / 10).toFixed(1)} mm`; });
  bind("colour", ({ value }) => {
    const which = value - 3, scale = which >= 0 ? meta.values[which] : { low: 0, high: +field("longest").max };
    state.colour = Math.min(+value, 3);
    fillValues(which);
    legend.hidden = value === "0" || value === "2";
    legend.style.display = legend.hidden ? "none" : "";
    const unit = which < 0 ? " mm" : "", short = number => +number.toPrecision(4) + unit;
    legend.replaceChildren(...[scale.low, scale.high].map(end => Object.assign(document.createElement("span"), { textContent: short(end) })));
  });
  bind("look", ({ value }) => { state.clear = value === "clear"; });
  bind("image", ({ value }) => { state.image = +value; });
  bind("slab", ({ value }) => { state.slab = +value; return +value ? `${value} mm` : "off"; });
  bind("clip", ({ value }) => { state.clip = +value; });
  AXES.forEach((axis, a) => {
    bind("show" + axis, ({ checked }) => { state.slices[a] = checked ? 1 : 0; });
    const input = field("at" + axis);
    if (!input) return;
    Object.assign(input, { min: Math.ceil(meta.box[0][a] + meta.origin[a]), max: Math.floor(meta.box[1][a] + meta.origin[a]) });
    input.value = Math.round(meta.centre[a] + meta.origin[a]);
    bind("at" + axis, ({ value }) => { state.at[a] = value - meta.origin[a]; return `${value} mm`; });
  });
  canvas.addEventListener("webglcontextlost", () => root.classList.add("no-webgl"));
  new ResizeObserver(request).observe(canvas);
  root.classList.add("ready");

  /* How long does a streamline take here? Software rendering gets fewer of them. */
  const pixel = new Uint8Array(4), few = Math.min(400, all), finish = () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  state.still = few;
  draw();
  finish();
  const began = performance.now();
  draw();
  finish();
  const each = (performance.now() - began) / few;
  state.still = Math.round(Math.min(all, Math.max(1000, 4000 / each)));
  state.budget = Math.round(Math.min(all, Math.max(500, 40 / each)));
  draw();
}
addEventListener("DOMContentLoaded", () => {
  const root = $("#viewer");
  if (root) start(root).catch(error => { root.classList.add("no-webgl"); root.dataset.fault = error; });
});
})();
