package v1

//go:generate go run ./internal/genschema
