// Short tones, made with WebAudio.
export class Tones {
  #audio = null;

  constructor() {
    // Browsers allow sound only after a click or a key.
    for (const touch of ["pointerdown", "keydown"]) addEventListener(touch, () => this.wake(), { once: true });
  }

  /** Call from a click. */
  wake() {
    this.#audio ??= new AudioContext();
    this.#audio.resume();
  }

  /** `notes`: [[hertz, seconds from now]]. Silent before the first click or key. */
  play(notes) {
    if (this.#audio?.state !== "running") return;
    const start = this.#audio.currentTime;
    for (const [frequency, delay] of notes) {
      const tone = this.#audio.createOscillator();
      const volume = this.#audio.createGain();
      tone.frequency.value = frequency;
      volume.gain.setValueAtTime(0, start + delay);
      volume.gain.linearRampToValueAtTime(0.12, start + delay + 0.015);
      volume.gain.exponentialRampToValueAtTime(0.0008, start + delay + 0.5);
      tone.connect(volume).connect(this.#audio.destination);
      tone.start(start + delay);
      tone.stop(start + delay + 0.52);
    }
  }
}
