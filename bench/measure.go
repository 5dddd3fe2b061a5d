package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// sample is what one process took.
type sample struct {
	wall, processor time.Duration
	peak            int64 // bytes of memory, 0 where the system does not tell
	self            time.Duration
}

// command runs a process and measures it.
func command(name string, args ...string) (sample, error) {
	cmd := exec.Command(name, args...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.Env = append(os.Environ(), "SDNQ_USE_TORCH_COMPILE=0", "HF_HUB_OFFLINE=1")
	start := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, tail(complaint.String()))
	}
	s.processor = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	s.peak = peak(cmd.ProcessState)
	var seconds float64
	if _, err := fmt.Sscanf(out.String(), "seconds %f", &seconds); err == nil {
		s.self = time.Duration(seconds * float64(time.Second))
	}
	return s, nil
}

func tail(text string) string { return text[max(0, len(text)-2000):] }

// copied runs cp, or copies where there is none.
func (b *bench) copied(source, dest string) (sample, error) {
	if path, err := exec.LookPath("cp"); err == nil {
		return b.synced(dest, path, source, dest)
	}
	start := time.Now()
	in, err := os.Open(source)
	if err != nil {
		return sample{}, err
	}
	defer in.Close()
	out, err := os.Create(dest)
	if err != nil {
		return sample{}, err
	}
	_, err = io.Copy(out, in)
	return sample{wall: time.Since(start)}, errors.Join(err, out.Close())
}

// synced runs a process and, if asked, syncs the file that it wrote.
func (b *bench) synced(dest, name string, args ...string) (sample, error) {
	s, err := command(name, args...)
	if err != nil || !b.sync {
		return s, err
	}
	start := time.Now()
	f, err := os.OpenFile(dest, os.O_RDWR, 0)
	if err != nil {
		return s, err
	}
	err = errors.Join(f.Sync(), f.Close())
	s.wall += time.Since(start)
	return s, err
}

// spread is the least, the median and the greatest of some figures.
type spread struct{ least, median, greatest float64 }

func spreadOf(samples []float64) spread {
	slices.Sort(samples)
	n := len(samples)
	return spread{samples[0], (samples[n/2] + samples[(n-1)/2]) / 2, samples[n-1]}
}

func (s spread) text(digits int) string {
	return fmt.Sprintf("%.*f | %.*f | %.*f", digits, s.least, digits, s.median, digits, s.greatest)
}
