package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes as a flag's value: 268435456, 256MiB, 5GB, 1.5G.
type size struct {
	bytes int64 // 0 if not given
	least int64
}

// units are the bytes of each unit. A single letter is decimal.
var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1e3, "kb": 1e3, "kib": 1 << 10,
	"m": 1e6, "mb": 1e6, "mib": 1 << 20,
	"g": 1e9, "gb": 1e9, "gib": 1 << 30,
	"t": 1e12, "tb": 1e12, "tib": 1 << 40,
}

var errSize = errors.New("want a size such as 256MiB, 5GB or a number of bytes")

// Set parses a size.
func (s *size) Set(text string) error {
	n, err := parseSize(text)
	if err != nil {
		return err
	}
	if n < s.least {
		return fmt.Errorf("want at least %s", sizeText(s.least))
	}
	s.bytes = n
	return nil
}

func parseSize(text string) (int64, error) {
	digits := strings.TrimRight(text, "kKmMgGtTiIbB ")
	unit, known := units[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	if !known || strings.Trim(digits, "0123456789.") != "" {
		return 0, errSize
	}
	n, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil:
		return 0, errSize
	case n*unit >= math.MaxInt64:
		return 0, errors.New("more bytes than can be counted")
	}
	return int64(n * unit), nil
}

// String returns the size in the form that Set parses.
func (s *size) String() string {
	if s.bytes == 0 {
		return ""
	}
	return sizeText(s.bytes)
}

func sizeText(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return strconv.FormatInt(n, 10)
}

// Type names the value in help.
func (s *size) Type() string { return "SIZE" }
