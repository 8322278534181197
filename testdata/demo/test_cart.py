import unittest

from cart import Cart


class CartTest(unittest.TestCase):
    def test_empty(self):
        self.assertEqual(Cart().total(), 0)

    def test_count(self):
        cart = Cart()
        cart.add("tea", 450, 2)
        cart.add("cup", 900)
        self.assertEqual(cart.total(), 1800)

    def test_discount_is_rounded_in_favour_of_the_customer(self):
        cart = Cart()
        cart.add("tea", 455)
        self.assertEqual(cart.total(discount_percent=10), 409)


if __name__ == "__main__":
    unittest.main()
