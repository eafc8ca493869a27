"""Which key presses answer a question, and which are text that somebody was typing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: A key counts as an answer when no other came for this long before it.
SILENCE_SECONDS = 0.7

_ENTER = ("c-m", "c-j")


class Deciding:
    """A question of one key.

    `keys` are the answers, `enter` is what Enter alone means, those in `twice` must be confirmed, `typed_at` is when
    the last key came before the question. `draft` is text that was typed and is no answer.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        enter: str | None = None,
        twice: Collection[str] = (),
        draft: str = "",
        typed_at: float = float("-inf"),
        clock: Callable[[], float],
    ) -> None:
        self.draft = draft
        self.candidate = ""
        self._keys = keys
        self._enter = enter
        self._twice = twice
        self._clock = clock
        # Nobody answers a question in the moment it appears.
        self._last = max(typed_at, clock())
        self._quiet = False

    @property
    def hint(self) -> str:
        """What the person must still do."""
        meaning = self._keys.get(self.candidate)
        if meaning:
            return f"{meaning}? Enter or {self.candidate} again: "
        return f"({', '.join(self._keys)} decide; text is kept) " if "\n" in self.draft else ""

    def heard(self) -> None:
        """A key came, whichever."""
        now = self._clock()
        self._quiet, self._last = now - self._last >= SILENCE_SECONDS, now

    def meant(self, pressed: str) -> str | None:
        """The answer that a key names; the other case counts where it names no other."""
        return next((key for key in (pressed, pressed.swapcase()) if key in self._keys), None)

    def press(self, pressed: str, *, alone: bool) -> str | None:
        """A key that may answer; the answer. `alone`: nothing but Enter came together with it."""
        key = self.meant(pressed)
        if key is not None and key == self.candidate:
            return self._answer(key)
        if key is None or self.candidate or not (self._quiet and alone):
            self.type(pressed)
            return None
        if key in self._twice or self._composing(key):
            self.candidate = key
            return None
        return self._answer(key)

    def confirm(self) -> str | None:
        """Enter: the answer, if it is one."""
        if self.candidate:
            return self._answer(self.candidate)
        if self._enter is not None and self._quiet and not self.draft.strip():
            return self._answer(self._enter)
        if self.draft:
            self.type("\n")
        return None

    def type(self, text: str) -> None:
        """Text that is no answer; a key that waited to be confirmed was text, too."""
        self.draft += self.candidate + text
        self.candidate = ""

    def erase(self) -> None:
        """Backspace."""
        if not self.candidate:
            self.draft = self.draft[:-1]
        self.candidate = ""

    def _answer(self, key: str) -> str:
        self.candidate = ""
        if not self._composing(key):
            self.draft = ""  # pressed too early, and again
        return key

    def _composing(self, key: str) -> bool:
        """Whether the person was writing something, and did not only press this key too early."""
        return bool(set(self.draft.strip()) - {key})


def question_keys(
    deciding: Deciding, meanings: Mapping[str, str], tell: Callable[[str], None] = lambda hint: None
) -> KeyBindings:
    """Key bindings that let a person decide; the line shows the draft, in the end the answer's meaning.

    `tell` gets each hint, for terminals on which the label of the line cannot change.
    """
    bindings = KeyBindings()

    def show(event: KeyPressEvent, answer: str | None) -> None:
        if answer is None:
            event.current_buffer.text = deciding.draft
            event.current_buffer.cursor_position = len(deciding.draft)
            return
        event.current_buffer.text = meanings[answer]
        event.current_buffer.validate_and_handle()

    @bindings.add("<any>", eager=True)
    def _pressed(event: KeyPressEvent) -> None:
        deciding.heard()
        if len(event.data) == 1 and event.data.isprintable():
            alone = all(press.key in _ENTER for press in event.key_processor.input_queue)
            show(event, deciding.press(event.data, alone=alone))
            tell(deciding.hint if deciding.candidate else "")

    @bindings.add("<bracketed-paste>", eager=True)
    def _pasted(event: KeyPressEvent) -> None:
        deciding.heard()
        deciding.type(event.data.replace("\r\n", "\n").replace("\r", "\n"))
        show(event, None)

    @bindings.add("enter", eager=True)
    @bindings.add("c-j", eager=True)
    def _enter(event: KeyPressEvent) -> None:
        deciding.heard()
        show(event, deciding.confirm())
        tell(deciding.hint)

    @bindings.add("backspace", eager=True)
    def _erase(event: KeyPressEvent) -> None:
        deciding.heard()
        deciding.erase()
        show(event, None)

    _add_ways_out(bindings)
    return bindings


def _add_ways_out(bindings: KeyBindings) -> None:
    @bindings.add("c-c", eager=True)
    def _interrupt(event: KeyPressEvent) -> None:
        event.current_buffer.reset()
        event.app.exit(exception=KeyboardInterrupt())

    @bindings.add("c-d", eager=True)
    def _leave(event: KeyPressEvent) -> None:
        event.current_buffer.reset()
        event.app.exit(exception=EOFError())
