package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// screen is a terminal of some width that breaks its lines anew where that changes.
type screen struct {
	width    int
	lines    [][]byte
	row, col int
	writes   []string
}

func newScreen(width int) *screen { return &screen{width: width, lines: [][]byte{nil}} }

func (s *screen) Write(p []byte) (int, error) {
	s.writes = append(s.writes, string(p))
	for text := string(p); text != ""; {
		n := 1
		switch {
		case text[0] == '\r':
			s.col = 0
		case text[0] == '\n':
			s.row, s.col = s.row+1, 0
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJK")
			var up int
			fmt.Sscanf(text[2:], "%d", &up)
			switch text[end] {
			case 'A':
				s.row = max(s.row-up, 0)
			case 'J':
				s.lines = s.lines[:s.row+1]
				s.cut()
			case 'K':
				s.cut()
			}
			n = end + 1
		default:
			if s.col == s.width {
				s.row, s.col = s.row+1, 0
			}
			s.grow()
			line := &s.lines[s.row]
			for len(*line) <= s.col {
				*line = append(*line, ' ')
			}
			(*line)[s.col] = text[0]
			s.col++
		}
		s.grow()
		text = text[n:]
	}
	return len(p), nil
}

func (s *screen) grow() {
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, nil)
	}
}

func (s *screen) cut() { s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))] }

// resize breaks the line of the cursor anew.
func (s *screen) resize(width int) {
	last := s.lines[s.row]
	s.lines = s.lines[:s.row]
	for len(last) > width {
		s.lines = append(s.lines, last[:width:width])
		last = last[width:]
	}
	s.lines = append(s.lines, last)
	s.width, s.row, s.col = width, len(s.lines)-1, len(last)
}

// shown are the lines without what is empty.
func (s *screen) shown() (texts []string) {
	for _, line := range s.lines {
		if text := strings.TrimSpace(string(line)); text != "" {
			texts = append(texts, text)
		}
	}
	return texts
}

// moment are the figures of a run.
func moment(done int64, elapsed time.Duration) *watch.Figures {
	f := &watch.Figures{Elapsed: elapsed, ReadRate: 340e6, WriteRate: 100e6, Left: 80 * time.Second}
	f.Phase, f.Done, f.Total = watch.Writing, done, 2_600_000_000
	f.Retries[watch.Busy], f.Retries[watch.Cut] = 2, 1
	return f
}

// TestBar: the bar is one line of printable ASCII at every width, also where that changes
// while it stands, what was there before stays, and nothing of it is left at the end.
func TestBar(t *testing.T) {
	for _, reflows := range []bool{true, false} {
		for first := range 130 {
			for _, second := range []int{first + 1, 120, 81, 40, 12, 3} {
				if first == 0 || !reflows && second < first+1 {
					continue
				}
				s := newScreen(first + 1)
				fmt.Fprint(s, "$\n")
				m := &barMeter{w: s, width: func() int { return s.width }, reflows: reflows}
				for i := range 4 {
					if i == 2 {
						s.resize(second)
					}
					m.show(moment(int64(i)*600_000_000, time.Duration(i)*time.Second))
					got := s.shown()
					if len(got) != 2 || got[0] != "$" || s.row != 1 {
						t.Fatalf("%d and %d wide: the %d. time %q", first+1, second, i, got)
					}
				}
				m.rest(nil, true)
				if got := s.shown(); len(got) != 1 || s.row != 1 || s.col != 0 {
					t.Fatalf("%d and %d wide: at the end %q, at %d, %d", first+1, second, got, s.row, s.col)
				}
				for _, text := range s.writes {
					if i := strings.IndexFunc(text, func(r rune) bool { return r >= 0x7f || r < ' ' && !strings.ContainsRune("\r\n\x1b", r) }); i >= 0 {
						t.Fatalf("%q is no ASCII", text)
					}
				}
			}
		}
	}
}

// TestBarText: what matters least is left out first.
func TestBarText(t *testing.T) {
	f := moment(1_200_000_000, time.Minute)
	for width, want := range map[int]string{
		120: "writing  46 % [#############................] read 340 MB/s, write 100 MB/s, 1 min 20 s left, asked again 429: 2, cut: 1",
		100: "writing  46 % read 340 MB/s, write 100 MB/s, 1 min 20 s left, asked again 429: 2, cut: 1",
		60:  "writing  46 % 1 min 20 s left, asked again 429: 2, cut: 1",
		79:  "writing  46 % write 100 MB/s, 1 min 20 s left, asked again 429: 2, cut: 1",
		20:  "writing  46 %",
		13:  "writing  46 %",
		12:  "46 %",
		3:   "46 ",
		0:   "",
	} {
		if got := barText(f, width); got != want {
			t.Errorf("%d wide: %q, want %q", width, got, want)
		}
	}
	f.Counts = watch.Counts{Phase: watch.Planning}
	f.ReadRate, f.WriteRate, f.Left = 0, 0, -1
	if got := barText(f, 80); got != "planning" {
		t.Errorf("before anything is known: %q", got)
	}
	s := newScreen(80)
	m := &barMeter{w: s, width: func() int { return 80 }}
	f.Elapsed = 100 * time.Millisecond
	m.show(f)
	m.rest(f, true)
	if s.writes != nil {
		t.Errorf("a run that has hardly begun: %q", s.writes)
	}
}

// TestPlain: lines come at most every five seconds, and at least every minute; a short run
// has one only where lines were asked for.
func TestPlain(t *testing.T) {
	for _, asked := range []bool{false, true} {
		var short bytes.Buffer
		m := &plainMeter{w: &short, asked: asked}
		m.show(moment(1, time.Second))
		m.show(moment(2_000_000_000, 4900*time.Millisecond))
		m.rest(moment(2_600_000_000, 5*time.Second), true)
		want := ""
		if asked {
			want = "tensorpress: 100 % of 2.6 GB\n"
		}
		if got := short.String(); got != want {
			t.Errorf("a short run: %q, want %q", got, want)
		}
	}
	var long bytes.Buffer
	m := &plainMeter{w: &long}
	var at []int
	for s := range 3600 {
		n := long.Len()
		m.show(moment(int64(s)*2_600_000_000/3600, time.Duration(s)*time.Second))
		if long.Len() > n {
			at = append(at, s)
		}
	}
	m.rest(moment(2_600_000_000, time.Hour), true)
	for i, s := range at {
		if i > 0 && (s-at[i-1] < 5 || s-at[i-1] > 60) {
			t.Errorf("a line after %d s and one after %d", at[i-1], s)
		}
	}
	lines := strings.Split(long.String(), "\n")
	if lines[0] != "tensorpress: writing   0 % of 2.6 GB, read 340 MB/s, write 100 MB/s, 1 min 20 s left, asked again 429: 2, cut: 1" {
		t.Errorf("the first line is %q", lines[0])
	}
}

// eachWrite records what is written, call by call.
type eachWrite struct{ texts []string }

func (w *eachWrite) Write(p []byte) (int, error) {
	w.texts = append(w.texts, string(p))
	return 0, fmt.Errorf("nobody reads")
}

// TestJSONLines: a line for each hundredth or each second, written in one call, and one at
// the end that says how the run ended.
func TestJSONLines(t *testing.T) {
	for state, want := range map[report.State]int64{report.OK: 2_600_000_000, report.Failed: 1_000_000_000, report.Interrupted: 1_000_000_000} {
		w := &eachWrite{}
		m := &jsonMeter{w: w}
		for i := range 51 {
			m.show(moment(int64(i)*20_000_000, time.Duration(i)*200*time.Millisecond))
		}
		m.rest(nil, true)
		last := moment(1_000_000_000, 11*time.Second)
		last.Left = -1
		m.end(last, state)
		if len(w.texts) < 38 || len(w.texts) > 45 {
			t.Errorf("%d lines", len(w.texts))
		}
		var p report.Progress
		for i, text := range w.texts {
			if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "}\n") {
				t.Errorf("a call writes %q", text)
			}
			was := p
			p = report.Progress{}
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				t.Fatal(err)
			}
			ended := i == len(w.texts)-1
			if p.Done < was.Done || p.Seconds < was.Seconds || (p.State != report.Running) != ended || (p.RemainingSeconds == nil) != ended {
				t.Errorf("%s after %+v", text, was)
			}
		}
		if p.State != state || p.Done != want || p.Retries["429"] != 2 || p.Phase != report.Writing {
			t.Errorf("the last line is %+v", p)
		}
	}
}

// TestTimeText: times are as long as they are sure.
func TestTimeText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 59400 * time.Millisecond: "59 s", 60 * time.Second: "1 min 00 s", 599 * time.Second: "9 min 59 s", 601 * time.Second: "10 min",
		2*time.Hour + 5*time.Minute + 59*time.Second: "2 h 05 min", 100 * time.Hour: "4 days",
	} {
		if got := timeText(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

// TestPhasesHaveNames: what is counted and what JSON says have the same words.
func TestPhasesHaveNames(t *testing.T) {
	var said []string
	for _, p := range []report.Phase{report.Planning, report.Measuring, report.Writing, report.Verifying, report.Comparing, report.Hashing, report.Uploading, report.Placing} {
		said = append(said, string(p))
	}
	if got := strings.Join(said, " "); got != strings.Join(watch.Phases, " ") {
		t.Errorf("%s, and %v", got, watch.Phases)
	}
}
