package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
	"golang.org/x/term"
)

// meter shows how far a run has come. Calls never overlap.
type meter interface {
	// pause is how often show is called, 0 for never.
	pause() time.Duration
	show(f *watch.Figures)
	// rest is called once, before a result is printed; done says whether the work was
	// completed.
	rest(f *watch.Figures, done bool)
	// end is called once, when the run is over.
	end(f *watch.Figures, state report.State)
}

// progressMode is the value of --progress.
type progressMode string

var progressModes = []string{"auto", "plain", "json", "none"}

// Set accepts only modes that exist.
func (m *progressMode) Set(text string) error {
	for _, mode := range progressModes {
		if mode == text {
			*m = progressMode(text)
			return nil
		}
	}
	return fmt.Errorf("want %s", strings.Join(progressModes, ", "))
}

func (m *progressMode) String() string { return string(*m) }

// Type names the value in help.
func (m *progressMode) Type() string { return "MODE" }

// newMeter returns the meter of a mode. auto is a bar on a terminal, else lines, which
// only runs that take long print.
func newMeter(mode progressMode, w io.Writer) meter {
	switch {
	case mode == "none":
		return silent{}
	case mode == "json":
		return &jsonMeter{w: w}
	case mode == "plain":
		return &plainMeter{w: w, asked: true}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		return &barMeter{w: w, reflows: reflows(), width: func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 {
				return 80
			}
			return width
		}}
	}
	return &plainMeter{w: w}
}

// reflows reports whether a terminal obeys control sequences, and breaks its lines anew
// where it becomes narrower.
func reflows() bool {
	return runtime.GOOS != "windows" && os.Getenv("XTERM_VERSION") == "" && os.Getenv("STY") == ""
}

type silent struct{}

func (silent) pause() time.Duration             { return 0 }
func (silent) show(*watch.Figures)              {}
func (silent) rest(*watch.Figures, bool)        {}
func (silent) end(*watch.Figures, report.State) {}

// plainMeter prints lines: one for each tenth of the work, each phase and at least each
// minute, at most one every five seconds.
type plainMeter struct {
	w      io.Writer
	asked  bool // by name, so that even a short run has a line
	last   time.Duration
	tenth  int64
	phase  watch.Phase
	spoken bool
}

// between is the least time between two lines, and silence the most.
const between, silence = 5 * time.Second, time.Minute

func (m *plainMeter) pause() time.Duration { return between / 10 }

func (m *plainMeter) show(f *watch.Figures) {
	tenth := percent(f.Done, f.Total) / 10
	since := f.Elapsed - m.last
	if since < between || f.Total > 0 && since < silence && tenth == m.tenth && f.Phase == m.phase || f.Total == 0 && since < silence {
		return
	}
	m.tenth, m.phase, m.last, m.spoken = tenth, f.Phase, f.Elapsed, true
	fmt.Fprintf(m.w, "tensorpress: %s\n", strings.Join(append([]string{headOf(f)}, detailsOf(f)...), ", "))
}

// headOf is the phase, and how much of the work is done.
func headOf(f *watch.Figures) string {
	if f.Total <= 0 {
		return fmt.Sprintf("%s for %s", f.Phase, timeText(f.Elapsed))
	}
	return fmt.Sprintf("%s %3d %% of %s", f.Phase, percent(f.Done, f.Total), report.Size(f.Total))
}

// detailsOf are what else there is to say.
func detailsOf(f *watch.Figures) (texts []string) {
	if f.ReadRate >= 1 {
		texts = append(texts, "read "+report.Size(int64(f.ReadRate))+"/s")
	}
	if f.WriteRate >= 1 {
		texts = append(texts, "write "+report.Size(int64(f.WriteRate))+"/s")
	}
	if f.Left >= 0 && f.Done < f.Total {
		texts = append(texts, timeText(f.Left)+" left")
	}
	if text := triesText(f); text != "" {
		texts = append(texts, text)
	}
	return texts
}

// triesText says which requests had to be made again.
func triesText(f *watch.Figures) string {
	var why []string
	for i, n := range f.Retries {
		if n > 0 {
			why = append(why, fmt.Sprintf("%s: %d", watch.Reason(i), n))
		}
	}
	if why == nil {
		return ""
	}
	return "asked again " + strings.Join(why, ", ")
}

// timeText is a time in one or two units.
func timeText(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days", s/86400)
}

func (m *plainMeter) rest(f *watch.Figures, done bool) {
	if done && (m.asked || m.spoken) && f.Total > 0 {
		fmt.Fprintf(m.w, "tensorpress: 100 %% of %s\n", report.Size(f.Total))
	}
}

func (m *plainMeter) end(*watch.Figures, report.State) {}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return min(int64(float64(done)/float64(total)*100), 100)
}

// jsonMeter prints one JSON object per line: one for each hundredth of the work and each
// phase, at most five a second and at least one, and one at the end.
type jsonMeter struct {
	w     io.Writer
	last  time.Duration
	part  int64
	phase watch.Phase
}

func (m *jsonMeter) pause() time.Duration { return 200 * time.Millisecond }

func (m *jsonMeter) show(f *watch.Figures) {
	part := percent(f.Done, f.Total)
	if part == m.part && f.Phase == m.phase && f.Elapsed-m.last < time.Second {
		return
	}
	m.part, m.phase, m.last = part, f.Phase, f.Elapsed
	m.print(f, report.Running)
}

// print prints a line, in one call.
func (m *jsonMeter) print(f *watch.Figures, state report.State) {
	p := progressOf(f)
	if p.State = state; state == report.OK {
		p.Done = p.Total
	}
	var b strings.Builder
	if writeJSON(&b, p, "") == nil {
		_, _ = io.WriteString(m.w, b.String()) // nobody may be there to read it
	}
}

func (m *jsonMeter) rest(*watch.Figures, bool)                {}
func (m *jsonMeter) end(f *watch.Figures, state report.State) { m.print(f, state) }

// progressOf are figures as JSON has them.
func progressOf(f *watch.Figures) *report.Progress {
	p := &report.Progress{
		Done: f.Done, Total: f.Total, Phase: report.Phase(f.Phase.String()), Seconds: rounded(f.Elapsed),
		Read: f.Read, Written: f.Written, Uploaded: f.Uploaded, ReadRate: float64(int64(f.ReadRate)), WriteRate: float64(int64(f.WriteRate)),
	}
	if f.Left >= 0 {
		p.RemainingSeconds = new(rounded(f.Left))
	}
	for i, n := range f.Retries {
		if n > 0 {
			if p.Retries == nil {
				p.Retries = map[string]int64{}
			}
			p.Retries[watch.Reason(i).String()] = n
		}
	}
	return p
}

// rounded is a time in seconds, to the millisecond.
func rounded(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// barMeter draws a line on a terminal, again and again in its place, and erases it at the
// end.
type barMeter struct {
	w       io.Writer
	width   func() int // of the terminal
	reflows bool
	drawn   int // characters that stand there
}

const (
	// mostWide is how wide a line gets, and mostBar the bar in it.
	mostWide, mostBar = 120, 30
	// quick runs that have counted nothing have no line.
	quick = time.Second
)

func (m *barMeter) pause() time.Duration { return 100 * time.Millisecond }

func (m *barMeter) show(f *watch.Figures) {
	if f.Total <= 0 && f.Elapsed < quick {
		return
	}
	width := m.width()
	text := barText(f, min(width-1, mostWide))                               // in the last column, some terminals begin a new line
	_, _ = io.WriteString(m.w, m.over(width)+text+m.after(len(text), width)) // a line that cannot be drawn is no reason to stop
}

// over goes to where the line begins. Where the terminal has become narrower, that is some
// lines up.
func (m *barMeter) over(width int) string {
	if !m.reflows || m.drawn <= width {
		return "\r"
	}
	return fmt.Sprintf("\r\x1b[%dA\x1b[J", (m.drawn-1)/width)
}

// after removes what is left of a longer line.
func (m *barMeter) after(n, width int) string {
	was := m.drawn
	if m.drawn = n; was <= n {
		return ""
	}
	if m.reflows {
		return "\x1b[K"
	}
	m.drawn = max(min(was, width-1), n)
	return strings.Repeat(" ", m.drawn-n)
}

func (m *barMeter) rest(*watch.Figures, bool) {
	if m.drawn > 0 {
		width := m.width()
		_, _ = io.WriteString(m.w, m.over(width)+m.after(0, width)+"\r")
		m.drawn = 0
	}
}

func (m *barMeter) end(f *watch.Figures, _ report.State) { m.rest(f, false) }

// barText is a line of at most that many characters: what matters least is left out first.
func barText(f *watch.Figures, width int) string {
	details := detailsOf(f)
	for {
		head := fmt.Sprint(f.Phase)
		if f.Total > 0 {
			head += fmt.Sprintf(" %3d %%", percent(f.Done, f.Total))
		}
		rest := strings.Join(details, ", ")
		switch room := width - len(head) - len(rest) - 4; {
		case f.Total > 0 && room >= 10:
			return strings.TrimRight(head+" "+bar(f.Done, f.Total, min(room, mostBar))+" "+rest, " ")
		case len(strings.TrimRight(head+" "+rest, " ")) <= width:
			return strings.TrimRight(head+" "+rest, " ")
		case len(details) > 0:
			details = details[1:]
		case f.Total > 0:
			return cut(fmt.Sprintf("%d %%", percent(f.Done, f.Total)), width)
		default:
			return cut(head, width)
		}
	}
}

func cut(text string, width int) string { return text[:max(min(len(text), width), 0)] }

// bar is a bar of that many characters, and its ends.
func bar(done, total int64, width int) string {
	full := int(float64(done) / float64(total) * float64(width))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}
