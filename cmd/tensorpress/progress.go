package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/report"
	"golang.org/x/term"
)

// meter shows how far a run has come.
type meter interface {
	// update is called as work is done, never twice at a time.
	update(p tensorpress.Progress)
	// end is called once, with whether all of it was done.
	end(done bool)
}

// progressMode is the value of --progress.
type progressMode string

var progressModes = []string{"auto", "plain", "json", "none"}

// Set takes a mode that exists.
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

// newMeter returns the meter of a mode. auto is a bar on a terminal; elsewhere
// it is lines, and none of them for a run that is over soon.
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

func (silent) update(tensorpress.Progress) {}
func (silent) end(bool)                    {}

// plainMeter prints a line for every tenth, and no two within a pause.
type plainMeter struct {
	w      io.Writer
	pause  time.Duration
	last   time.Time
	tenths int64
}

func (m *plainMeter) update(p tensorpress.Progress) {
	tenths := percent(p) / 10
	if tenths == m.tenths || time.Since(m.last) < m.pause {
		return
	}
	m.tenths, m.last = tenths, time.Now()
	fmt.Fprintf(m.w, "tensorpress: %3d %% of %s\n", tenths*10, report.Size(p.Total))
}

func (m *plainMeter) end(bool) {}

func percent(p tensorpress.Progress) int64 {
	if p.Total <= 0 {
		return 100
	}
	return min(int64(float64(p.Done)/float64(p.Total)*100), 100)
}

// jsonMeter prints an object a line: for every hundredth, at most ten a second,
// and one when all is done.
type jsonMeter struct {
	w       io.Writer
	last    time.Time
	shown   tensorpress.Progress
	current tensorpress.Progress
}

func (m *jsonMeter) update(p tensorpress.Progress) {
	m.current = p
	if percent(p) != percent(m.shown) && time.Since(m.last) >= 100*time.Millisecond {
		m.show()
	}
}

func (m *jsonMeter) show() {
	m.shown, m.last = m.current, time.Now()
	fmt.Fprintf(m.w, `{"done":%d,"total":%d}`+"\n", min(m.shown.Done, m.shown.Total), m.shown.Total)
}

func (m *jsonMeter) end(done bool) {
	if done {
		m.current.Done = m.current.Total
	}
	if m.current != m.shown {
		m.show()
	}
}

// barMeter draws a bar on a terminal and wipes it at the end.
type barMeter struct {
	w   io.Writer
	bar *progressbar.ProgressBar
}

func (m *barMeter) update(p tensorpress.Progress) {
	if p.Total <= 0 {
		return
	}
	if m.bar == nil {
		m.bar = progressbar.NewOptions64(p.Total,
			progressbar.OptionSetWriter(m.w),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetPredictTime(true),
		)
	}
	_ = m.bar.Set64(min(p.Done, p.Total)) // a bar that cannot be drawn is no reason to stop
}

func (m *barMeter) end(bool) {
	if m.bar != nil {
		_ = m.bar.Clear()
	}
}
