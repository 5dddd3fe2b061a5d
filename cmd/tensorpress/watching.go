package main

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/tensorpress/tensorpress/internal/watch"
	"github.com/tensorpress/tensorpress/report"
)

// watching is what shows and records how far the run of a command has come. It wakes up
// by time, so that the work only counts.
type watching struct {
	run   *watch.Run
	begun time.Time

	mu      sync.Mutex
	clock   *watch.Clock
	meter   meter
	metrics *metrics // nil for none
	resting bool     // the work has ended
	stop    chan struct{}
	stopped sync.WaitGroup
}

func newWatching() *watching {
	w := &watching{run: &watch.Run{}, begun: time.Now(), meter: silent{}}
	w.clock = watch.NewClock(w.run, w.begun)
	return w
}

type watchingKey struct{}

// within returns a context whose run is watched.
func (w *watching) within(ctx context.Context) context.Context {
	return context.WithValue(watch.With(ctx, w.run), watchingKey{}, w)
}

// watchingOf is what watches the run of a command.
func watchingOf(cmd *cobra.Command) *watching {
	if w, ok := cmd.Context().Value(watchingKey{}).(*watching); ok {
		return w
	}
	return newWatching() // nobody does
}

// shown has the run shown in a mode.
func (w *watching) shown(mode progressMode, stderr io.Writer) { w.meter = newMeter(mode, stderr) }

// start begins to show and to record.
func (w *watching) start() {
	pause := w.meter.pause()
	if w.metrics != nil && pause == 0 {
		pause = time.Second
	}
	if pause == 0 || w.stop != nil {
		return
	}
	w.stop = make(chan struct{})
	w.stopped.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				w.look(now)
			case <-w.stop:
				return
			}
		}
	})
}

func (w *watching) look(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.clock.Look(now)
	if !w.resting {
		w.meter.show(&f)
	}
	w.metrics.tick(&f)
}

// update takes what a command's progress tells.
func (w *watching) update(done, total int64) { w.run.Progress(done, total) }

// end makes room for the result; done says whether the work was completed.
func (w *watching) end(done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.resting {
		w.resting = true
		f := w.clock.Look(time.Now())
		w.meter.rest(&f, done)
	}
}

// made takes from a report what is recorded of it.
func (w *watching) made(r *report.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.metrics.count(r)
}

// close says how the run has ended.
func (w *watching) close(status int) (err error) {
	if w.stop != nil {
		close(w.stop)
		w.stopped.Wait()
	}
	state := report.Failed
	switch status {
	case 0:
		state = report.OK
	case interrupted:
		state = report.Interrupted
	}
	w.end(false)
	f := w.clock.Look(time.Now())
	w.meter.end(&f, state)
	return w.metrics.end(&f, status)
}
