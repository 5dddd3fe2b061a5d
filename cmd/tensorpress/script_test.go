package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/tensorpress/tensorpress/safetensors"
)

// The commands of scripts.

func check(ts *testscript.TestScript, err error) {
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o666)
}

// mksafetensors FILE [key=value...] [name:DTYPE:shape[:pattern]...] writes a
// file. A shape is 64x32, or nothing for a scalar; the patterns are zero, ones, ramp,
// rising, normal, and nan@I or inf@I for normal values with one of those at index I.
func mksafetensors(ts *testscript.TestScript, neg bool, args []string) {
	var tensors []safetensors.Tensor
	var metadata map[string]string
	patterns := map[string]string{}
	for _, arg := range args[1:] {
		if key, value, ok := strings.Cut(arg, "="); ok {
			metadata = map[string]string{key: value}
			continue
		}
		t, pattern, err := parseTensor(arg)
		check(ts, err)
		tensors = append(tensors, t)
		patterns[t.Name] = pattern
	}
	header, err := safetensors.NewHeader(tensors, metadata)
	check(ts, err)
	path := ts.MkAbs(args[0])
	check(ts, os.MkdirAll(filepath.Dir(path), 0o777))
	f, err := os.Create(path)
	check(ts, err)
	defer f.Close()
	check(ts, fillFile(f, header, patterns))
}

func parseTensor(text string) (t safetensors.Tensor, pattern string, err error) {
	fields := append(strings.Split(text, ":"), "normal")
	if len(fields) < 4 {
		return t, "", fmt.Errorf("%s: want name:DTYPE:shape", text)
	}
	t.Name = fields[0]
	if t.Dtype, err = safetensors.ParseDtype(fields[1]); err != nil {
		return t, "", err
	}
	for _, dim := range strings.FieldsFunc(fields[2], func(r rune) bool { return r == 'x' }) {
		n, err := strconv.Atoi(dim)
		if err != nil {
			return t, "", err
		}
		t.Shape = append(t.Shape, n)
	}
	return t, fields[3], nil
}

func fillFile(f *os.File, header *safetensors.Header, patterns map[string]string) error {
	w, err := safetensors.NewWriter(f, header)
	if err != nil {
		return err
	}
	for _, t := range header.Tensors {
		if patterns[t.Name] == "zero" {
			continue // a hole
		}
		if err := w.WriteSection(t, values(t, patterns[t.Name]), 0); err != nil {
			return err
		}
	}
	return f.Truncate(header.FileSize())
}

func values(t safetensors.Tensor, pattern string) []byte {
	random := rand.New(rand.NewPCG(1, uint64(len(t.Name))))
	kind, at, _ := strings.Cut(pattern, "@")
	special, _ := strconv.Atoi(at)
	var data []byte
	for i := range t.Numel() {
		x := random.NormFloat64()
		switch {
		case kind == "ramp":
			x = float64(i%251)/125 - 1
		case kind == "rising":
			x = float64(i % 251)
		case kind == "ones":
			x = 1
		case kind == "nan" && i == special:
			x = math.NaN()
		case kind == "inf" && i == special:
			x = math.Inf(1)
		}
		data = appendValue(data, t.Dtype, x)
	}
	return data
}

func appendValue(data []byte, d safetensors.Dtype, x float64) []byte {
	bits := math.Float32bits(float32(x))
	switch {
	case d == safetensors.F32:
		return binary.LittleEndian.AppendUint32(data, bits)
	case d == safetensors.BF16:
		return binary.LittleEndian.AppendUint16(data, uint16(bits>>16))
	}
	return append(data, make([]byte, d.Bits()/8)...)
}

// status N PROGRAM ARGS... runs a program, which must exit with N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	check(ts, err)
	if got := exitStatus(ts.Exec(args[1], args[2:]...)); got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// interrupt SIGNAL GLOB ARGS... runs tensorpress, sends it INT, TERM or HUP as
// soon as a file that the pattern matches is there, and leaves what it printed in
// interrupted.txt. It must exit with 130.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	send, ok := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	if !ok {
		ts.Fatalf("no signal %s", args[0])
	}
	args = args[1:]
	var printed bytes.Buffer
	bin := filepath.SplitList(ts.Getenv("PATH"))[0]
	cmd := exec.Command(filepath.Join(bin, "tensorpress"), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Stdout, cmd.Stderr = &printed, &printed
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, send) // else the program has it ignored where this process has, as under nohup
	defer signal.Stop(heard)
	check(ts, cmd.Start())
	deadline := time.Now().Add(10 * time.Second)
	for {
		if found, _ := filepath.Glob(ts.MkAbs(args[0])); len(found) > 0 || time.Now().After(deadline) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	check(ts, cmd.Process.Signal(send))
	if got := exitStatus(cmd.Wait()); got != 130 {
		ts.Fatalf("exit status %d, want 130: %s", got, &printed)
	}
	check(ts, os.WriteFile(ts.MkAbs("interrupted.txt"), printed.Bytes(), 0o666))
}

// flip FILE TENSOR HEX writes bytes over the beginning of a tensor.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	f, err := safetensors.Open(ts.MkAbs(args[0]))
	check(ts, err)
	defer f.Close()
	t, ok := f.Header().Lookup(args[1])
	if !ok {
		ts.Fatalf("no tensor %s", args[1])
	}
	var data []byte
	_, err = fmt.Sscanf(args[2], "%x", &data)
	check(ts, err)
	w, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	check(ts, err)
	defer w.Close()
	_, err = w.WriteAt(data, f.Header().DataStart+t.Offset)
	check(ts, err)
}

// truncate FILE N takes N bytes off the end of a file.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	check(ts, err)
	n, err := strconv.ParseInt(args[1], 10, 64)
	check(ts, err)
	check(ts, os.Truncate(ts.MkAbs(args[0]), info.Size()-n))
}

// holds FOLDER NAMES... makes sure that a folder holds these and nothing else,
// hidden leftovers included.
func holds(ts *testscript.TestScript, neg bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	check(ts, err)
	var got []string
	for _, e := range entries {
		if e.Name() != ".tmp" { // testscript's own
			got = append(got, e.Name())
		}
	}
	want := slices.Sorted(slices.Values(args[1:]))
	if !slices.Equal(got, want) {
		ts.Fatalf("%s holds %q, want %q", args[0], got, want)
	}
}

// json FILE PATH [WANT] compares the value at a path such as layers.0.name with
// a text. At the end of a path, len is a list's length and keys are an object's.
// FILE may be stdout.
func jsonQuery(ts *testscript.TestScript, neg bool, args []string) {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.UseNumber()
	var v any
	check(ts, d.Decode(&v))
	if _, err := d.Token(); err != io.EOF {
		ts.Fatalf("%s: more than one JSON value", args[0])
	}
	for _, key := range strings.Split(args[1], ".") {
		v = step(ts, v, key)
	}
	got, want := fmt.Sprint(v), strings.Join(args[2:], " ")
	if (got == want) == neg {
		ts.Fatalf("%s is %q, compared with %q", args[1], got, want)
	}
}

func step(ts *testscript.TestScript, v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		if key == "keys" {
			var keys []string
			for k := range v {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			return strings.Join(keys, " ")
		}
		value, ok := v[key]
		if !ok {
			return "absent"
		}
		return value
	case []any:
		if key == "len" {
			return len(v)
		}
		i, err := strconv.Atoi(key)
		check(ts, err)
		return v[i]
	}
	ts.Fatalf("no %s in %v", key, v)
	return nil
}
