"""A shopping cart. Prices are in cents."""


class Cart:
    def __init__(self):
        self.lines = []

    def add(self, name, cents, count=1):
        if count < 1:
            raise ValueError("count must be at least 1")
        self.lines.append((name, cents, count))

    def total(self, discount_percent=0):
        """What there is to pay, rounded down to whole cents."""
        total = sum(cents for _, cents, _ in self.lines)
        return total - total * discount_percent // 100
