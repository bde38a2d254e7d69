// A photo's strokes, with undo and redo.

export class History {
  constructor(strokes = []) {
    this.strokes = strokes;
    this.undone = [];
  }

  add(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
  }

  /** Whether there was a stroke to take back. */
  undo() {
    if (!this.strokes.length) return false;
    this.undone.push(this.strokes.pop());
    return true;
  }

  redo() {
    if (!this.undone.length) return false;
    this.strokes.push(this.undone.pop());
    return true;
  }

  /** What is left of them on a photo that can have only some classes. */
  keep(names) {
    const kept = (stroke) => names.includes(stroke.name);
    this.strokes = this.strokes.filter(kept);
    this.undone = this.undone.filter(kept);
  }
}
