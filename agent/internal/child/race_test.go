//go:build race

package child_test

// raceDetector tells whether the test, and so its children, run with it.
const raceDetector = true
