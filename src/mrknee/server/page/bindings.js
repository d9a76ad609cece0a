/**
 * All keys and gestures of the viewports, in one table: the viewer acts on it, and the help (?) is
 * made from it. To change a key or a mouse button, change it here.
 */

/**
 * @typedef {Object} Key
 * @property {string} command what the viewer does
 * @property {string[]} keys values of KeyboardEvent.key; letters in lower case
 * @property {boolean} [shift] whether Shift must be held; undefined: it does not matter
 * @property {string} help
 * @property {string} [group]
 */

/** @type {Key[]} */
export const KEYS = [
  { group: "Slices", command: "previous-slice", keys: ["ArrowUp"], shift: false, help: "Previous slice" },
  { group: "Slices", command: "next-slice", keys: ["ArrowDown"], shift: false, help: "Next slice" },
  { group: "Slices", command: "ten-back", keys: ["PageUp"], help: "Ten slices back" },
  { group: "Slices", command: "ten-on", keys: ["PageDown"], help: "Ten slices on" },
  { group: "Slices", command: "first-slice", keys: ["Home"], help: "First slice" },
  { group: "Slices", command: "last-slice", keys: ["End"], help: "Last slice" },
  { group: "Slices", command: "next-decisive", keys: ["d"], shift: false, help: "Decisive slice; again: the next most decisive" },
  { group: "Slices", command: "previous-decisive", keys: ["d"], shift: true, help: "One decisive slice back" },
  { group: "Slices", command: "cine", keys: ["c"], help: "Cine: start, stop" },
  { group: "Viewports", command: "previous-viewport", keys: ["ArrowLeft"], shift: false, help: "Previous viewport" },
  { group: "Viewports", command: "next-viewport", keys: ["ArrowRight"], shift: false, help: "Next viewport" },
  { group: "Viewports", command: "maximise", keys: ["m"], help: "Maximise the viewport, restore" },
  { group: "Viewports", command: "link", keys: ["l"], help: "Other series: the slices through the pointer or the image's middle (where positions are known)" },
  { group: "Image", command: "reset", keys: [" "], help: "Reset window, zoom and position" },
  { group: "Image", command: "invert", keys: ["i"], help: "Invert grey values" },
  { group: "Image", command: "zoom-in", keys: ["+", "="], help: "Zoom in" },
  { group: "Image", command: "zoom-out", keys: ["-", "_"], help: "Zoom out" },
  { group: "Image", command: "pan-up", keys: ["ArrowUp"], shift: true, help: "Move the image up" },
  { group: "Image", command: "pan-down", keys: ["ArrowDown"], shift: true, help: "Move the image down" },
  { group: "Image", command: "pan-left", keys: ["ArrowLeft"], shift: true, help: "Move the image left" },
  { group: "Image", command: "pan-right", keys: ["ArrowRight"], shift: true, help: "Move the image right" },
  { group: "Image", command: "brighter", keys: ["b"], shift: false, help: "Brighter" },
  { group: "Image", command: "darker", keys: ["b"], shift: true, help: "Darker" },
  { group: "Image", command: "more-contrast", keys: ["v"], shift: false, help: "More contrast" },
  { group: "Image", command: "less-contrast", keys: ["v"], shift: true, help: "Less contrast" },
  { group: "Why", command: "hide-heat", keys: ["h"], help: "Hide heat map and outlines while held" },
  { group: "Why", command: "toggle-heat", keys: ["t"], help: "Heat map on, off" },
  { group: "Why", command: "toggle-outline", keys: ["o"], help: "Lesion outlines on, off" },
  { group: "Why", command: "leave-out-slice", keys: ["x"], help: "Leave the shown slice out, take it back" },
  { group: "Why", command: "finding", keys: ["1", "2", "3", "4", "5", "6", "7", "8", "9"], help: "Select a finding" },
  { group: "Exams", command: "next-exam", keys: ["n"], help: "Next exam of the work list" },
  { group: "Exams", command: "previous-exam", keys: ["p"], help: "Previous exam of the work list" },
  { group: "Page", command: "search", keys: ["/"], help: "Search the work list" },
  { group: "Page", command: "help", keys: ["?"], help: "Keys and gestures" },
];

/**
 * @typedef {Object} Gesture
 * @property {string} command
 * @property {"mouse"|"hover"|"touch"|"wheel"|"double"} input
 * @property {number} [buttons] mouse: value of PointerEvent.buttons
 * @property {boolean} [shift] hover: whether Shift is held
 * @property {number} [fingers] touch
 * @property {boolean} [pinch] wheel: a pinch on a trackpad, or Ctrl and the wheel
 * @property {string} name
 * @property {string} help
 */

/** @type {Gesture[]} */
export const GESTURES = [
  { input: "wheel", pinch: false, command: "slices", name: "Wheel, two fingers on a trackpad", help: "Slices" },
  { input: "mouse", buttons: 1, command: "window", name: "Left drag", help: "Window: across for contrast, up for brightness" },
  { input: "mouse", buttons: 2, command: "zoom", name: "Right drag", help: "Zoom" },
  { input: "mouse", buttons: 4, command: "pan", name: "Middle drag", help: "Move the image" },
  { input: "hover", shift: true, command: "link", name: "Shift and pointer", help: "Other series follow to the pointer's place (where positions are known)" },
  { input: "wheel", pinch: true, command: "zoom", name: "Pinch on a trackpad, Ctrl and wheel", help: "Zoom" },
  { input: "touch", fingers: 1, command: "slices", name: "One finger", help: "Slices" },
  { input: "touch", fingers: 2, command: "zoom-and-pan", name: "Two fingers", help: "Zoom and move the image" },
  { input: "double", command: "maximise", name: "Double click, double tap", help: "Maximise the viewport, restore" },
];

/** @returns {Key|undefined} the binding of a key, without Ctrl, Alt and Meta */
export function keyBinding(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return KEYS.find(
    ({ keys, shift }) => keys.includes(pressed) && (shift === undefined || shift === event.shiftKey),
  );
}

/** @returns {string|undefined} the command of a gesture */
export function gestureCommand(input, more = {}) {
  const found = GESTURES.find(
    (one) => one.input === input && Object.entries(more).every(([name, value]) => one[name] === value),
  );
  return found?.command;
}
