package main

import (
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/report"
)

// TestRepeatedProblems: what is wrong with every layer must not hide what is wrong
// with one.
func TestRepeatedProblems(t *testing.T) {
	var problems []report.Problem
	for _, name := range strings.Fields("a b c d e") {
		problems = append(problems, report.Problem{Tensor: name, Problem: "not loaded"})
	}
	problems = append(problems, report.Problem{Tensor: "f", Problem: "cut"}, report.Problem{Problem: "no config"})
	var got strings.Builder
	printProblems(&got, problems)
	const want = "a: not loaded\nb: not loaded\nc: not loaded\nf: cut\nno config\n2 more: not loaded\n"
	if got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}
