package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/tensorpress/tensorpress/report"
	"golang.org/x/term"
)

// meter shows how far a run has come.
type meter interface {
	// update reports bytes done; calls never overlap.
	update(done, total int64)
	// end is called once; done says whether the run was completed.
	end(done bool)
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
		return &plainMeter{w: w}
	case isTerminal(w):
		return &barMeter{w: w}
	}
	return &plainMeter{w: w, pause: 5 * time.Second, last: time.Now()}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

type silent struct{}

func (silent) update(_, _ int64) {}
func (silent) end(bool)          {}

// plainMeter prints a line for every tenth of the work, at most one per pause.
type plainMeter struct {
	w      io.Writer
	pause  time.Duration
	last   time.Time
	tenths int64
}

func (m *plainMeter) update(done, total int64) {
	tenths := percent(done, total) / 10
	if tenths == m.tenths || time.Since(m.last) < m.pause {
		return
	}
	m.tenths, m.last = tenths, time.Now()
	fmt.Fprintf(m.w, "tensorpress: %3d %% of %s\n", tenths*10, report.Size(total))
}

func (m *plainMeter) end(bool) {}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return min(int64(float64(done)/float64(total)*100), 100)
}

// jsonMeter prints one JSON object per line: one for every hundredth of the work, at
// most ten a second, and one at the end.
type jsonMeter struct {
	w              io.Writer
	last           time.Time
	shown, current struct{ done, total int64 }
}

func (m *jsonMeter) update(done, total int64) {
	m.current.done, m.current.total = done, total
	if percent(done, total) != percent(m.shown.done, m.shown.total) && time.Since(m.last) >= 100*time.Millisecond {
		m.show()
	}
}

func (m *jsonMeter) show() {
	m.shown, m.last = m.current, time.Now()
	fmt.Fprintf(m.w, `{"done":%d,"total":%d}`+"\n", min(m.shown.done, m.shown.total), m.shown.total)
}

func (m *jsonMeter) end(done bool) {
	if done {
		m.current.done = m.current.total
	}
	if m.current != m.shown {
		m.show()
	}
}

// barMeter draws a bar on a terminal and erases it at the end.
type barMeter struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func (m *barMeter) update(done, total int64) {
	if total <= 0 {
		return
	}
	if m.bar == nil {
		m.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(m.w),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true),
		)
	}
	_ = m.bar.Set64(min(done, total)) // a bar that cannot be drawn is no reason to stop
}

func (m *barMeter) end(bool) {
	if m.bar != nil {
		_ = m.bar.Clear()
	}
}
