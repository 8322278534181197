package credential

const nonblock = 0
